-- The one program that writes. A write holds this row, so that a connection that was lost cannot commit later.
CREATE TABLE writer (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    batch INTEGER NOT NULL
);
INSERT INTO writer (id, owner, batch) VALUES (1, 0, 0);

-- Times are in seconds since 1970. A passkey without expiry does not expire.
CREATE TABLE passkeys (
    passkey BLOB NOT NULL PRIMARY KEY,
    expires INTEGER,
    note TEXT,
    owner TEXT,
    created INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE allowed (info_hash BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE denied (info_hash BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID;

-- A network, or ISD-AS,network for hosts over SCION.
CREATE TABLE bans (
    target TEXT NOT NULL PRIMARY KEY,
    expires INTEGER,
    reason TEXT NOT NULL
) WITHOUT ROWID;

-- ISDs separated by commas.
CREATE TABLE isolations (
    info_hash BLOB NOT NULL PRIMARY KEY,
    isds TEXT NOT NULL,
    proven INTEGER NOT NULL
) WITHOUT ROWID;

-- Rules as JSON. The empty info hash stands for all torrents.
CREATE TABLE rules (
    info_hash BLOB NOT NULL PRIMARY KEY,
    rules TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE completed (
    info_hash BLOB NOT NULL PRIMARY KEY,
    downloads INTEGER NOT NULL
) WITHOUT ROWID;
