create table row_erasures (
    id text primary key,
    table_name text not null,
    predicate_digest text not null,
    actor text not null,
    at bigint not null,
    why text not null,
    remains text not null,
    ended_at bigint
);

create table erased_files (
    erasure text not null,
    uuid text not null,
    path text not null,
    digest text not null,
    deletes text not null,
    replacement text not null,
    replacement_digest text not null,
    erased_rows bigint not null,
    primary key (erasure, uuid, path, deletes)
);

create table erased_states (
    erasure text not null,
    uuid text not null,
    content text not null,
    digest text not null,
    replacement_digest text not null,
    primary key (erasure, uuid, content, digest)
);
