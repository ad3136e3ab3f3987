alter table commits add column jump text not null default '';

alter table commits add column span bigint not null default 0;

create table tokens (
    token text primary key,
    ref text not null,
    digest text not null,
    commit_id text not null,
    at bigint not null
);

create index refs_by_kind on refs (kind, name);
create index changes_by_branch on changes (branch);
