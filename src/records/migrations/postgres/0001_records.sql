-- The one program that writes. A write holds this row, so that a connection that was lost cannot commit later.
CREATE TABLE writer (
    id BIGINT PRIMARY KEY,
    owner BIGINT NOT NULL,
    batch BIGINT NOT NULL
);
INSERT INTO writer (id, owner, batch) VALUES (1, 0, 0);

-- Times are in seconds since 1970. A passkey without expiry does not expire.
CREATE TABLE passkeys (
    passkey BYTEA NOT NULL PRIMARY KEY,
    expires BIGINT,
    note TEXT,
    owner TEXT,
    created BIGINT NOT NULL
);

CREATE TABLE allowed (info_hash BYTEA NOT NULL PRIMARY KEY);
CREATE TABLE denied (info_hash BYTEA NOT NULL PRIMARY KEY);

-- A network, or ISD-AS,network for hosts over SCION.
CREATE TABLE bans (
    target TEXT NOT NULL PRIMARY KEY,
    expires BIGINT,
    reason TEXT NOT NULL
);

-- ISDs separated by commas.
CREATE TABLE isolations (
    info_hash BYTEA NOT NULL PRIMARY KEY,
    isds TEXT NOT NULL,
    proven BIGINT NOT NULL
);

-- Rules as JSON. The empty info hash stands for all torrents.
CREATE TABLE rules (
    info_hash BYTEA NOT NULL PRIMARY KEY,
    rules TEXT NOT NULL
);

CREATE TABLE completed (
    info_hash BYTEA NOT NULL PRIMARY KEY,
    downloads BIGINT NOT NULL
);
