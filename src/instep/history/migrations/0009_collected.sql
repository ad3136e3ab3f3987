create table collected (
    number bigint primary key,
    at bigint not null,
    keep_days bigint not null,
    staging_days bigint not null,
    deleted bigint not null
);
