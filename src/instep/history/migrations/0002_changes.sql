create table changes (
    number bigint primary key,
    kind text not null,
    state text not null,
    title text not null,
    author text not null,
    opened_at bigint not null,
    branch text,
    base_commit text not null,
    head_commit text not null,
    evidence text not null,
    evidence_digest text not null,
    merged_commit text,
    ended_by text,
    ended_at bigint,
    why text not null
);

create index changes_by_state on changes (state);
create index changes_by_merge on changes (merged_commit);

create table approvals (
    change bigint not null references changes (number),
    actor text not null,
    at bigint not null,
    binding text not null,
    why text not null,
    primary key (change, actor, binding)
);
