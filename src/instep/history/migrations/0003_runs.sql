create table runs (
    id text primary key,
    pipeline text not null,
    branch text,
    actor text not null,
    state text not null,
    started_at bigint not null,
    ended_at bigint,
    lease_until bigint not null,
    input_commit text not null,
    output_commit text,
    slice_from bigint not null,
    slice_to bigint not null,
    configuration text not null,
    code text not null,
    code_digest text not null,
    runtime_digest text not null,
    runtime_blob text not null,
    engine text not null,
    steps text not null,
    outputs text not null,
    metrics text not null,
    estimated text not null,
    actual text not null,
    error text
);

create index runs_by_pipeline on runs (pipeline, started_at);
create index runs_by_state on runs (state);
create index runs_by_output_commit on runs (output_commit);

create table run_pieces (
    run text not null references runs (id),
    step text not null,
    position bigint not null,
    output text not null,
    content_digest text not null,
    content text not null,
    window_from bigint,
    window_to bigint,
    piece_key text not null,
    inputs text not null,
    code_digest text not null,
    configuration_digest text not null,
    runtime_digest text not null,
    files text not null,
    primary key (run, step, position)
);

create index run_pieces_by_output on run_pieces (output, content_digest);

create table model_versions (
    model text not null,
    version bigint not null,
    run text not null references runs (id),
    primary key (model, version)
);
