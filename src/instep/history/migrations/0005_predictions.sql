create table prediction_segments (
    segment text primary key,
    flushed_bytes bigint not null,
    flushed_records bigint not null
);
