create table lake (
    name text primary key,
    value text not null
);

create table nodes (
    digest text primary key,
    body text not null
);

create table commits (
    id text primary key,
    tree text not null,
    parents text not null,
    generation bigint not null,
    author text not null,
    at bigint not null,
    message text not null,
    origin text not null
);

create table refs (
    name text primary key,
    kind text not null,
    commit_id text not null,
    head text not null,
    sequence bigint not null,
    is_protected bigint not null,
    owner text not null,
    created_at bigint not null
);

create table operations (
    id text primary key,
    ref text not null,
    sequence bigint not null,
    previous text not null,
    before_commit text,
    after_commit text,
    actor text not null,
    at bigint not null,
    kind text not null,
    why text not null,
    unique (ref, sequence)
);

create index operations_by_time on operations (ref, at);
