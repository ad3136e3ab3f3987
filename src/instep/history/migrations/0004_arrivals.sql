create table arrivals (
    id text primary key,
    change bigint not null references changes (number),
    table_name text not null,
    source text not null,
    file_name text not null,
    file_digest text not null,
    file_size_bytes bigint not null,
    contract text,
    rows bigint not null,
    quarantined bigint not null,
    profile text,
    quarantine text,
    held_for text not null
);

create index arrivals_by_change on arrivals (change);
create index arrivals_by_file on arrivals (table_name, file_digest);

create table source_mappings (
    table_name text not null,
    source text not null,
    old_name text not null,
    new_name text not null,
    actor text not null,
    at bigint not null,
    change bigint not null references changes (number),
    primary key (table_name, source, new_name)
);
