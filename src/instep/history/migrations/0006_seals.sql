create table seals (
    sequence bigint primary key,
    id text not null,
    previous text not null,
    at bigint not null,
    lake text not null,
    heads text not null,
    records text not null
);

create table sealed_records (
    table_name text not null,
    record text not null,
    digest text not null,
    seal bigint not null,
    primary key (table_name, record)
);

create index sealed_records_by_seal on sealed_records (seal);

create table relocations (
    number bigint primary key,
    at bigint not null,
    act text not null,
    before_root text not null,
    after_root text not null,
    before_id text not null,
    after_id text not null
);
