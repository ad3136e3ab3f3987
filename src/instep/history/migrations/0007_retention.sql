create table collections (
    generation bigint primary key,
    at bigint not null
);

create table lived_days (
    day bigint primary key
);

create table condemned (
    name text primary key,
    generation bigint not null,
    lived bigint not null,
    mark text not null,
    size_bytes bigint not null
);

create table forgotten_commits (
    id text primary key,
    generation bigint not null,
    at bigint not null
);

create table erasures (
    digest text primary key,
    actor text not null,
    at bigint not null,
    why text not null,
    size_bytes bigint not null
);
