create table if not exists replacements (
    uuid text not null,
    content text not null,
    before_digest text not null,
    metadata text not null,
    digest text not null,
    why text not null,
    primary key (uuid, content)
);
