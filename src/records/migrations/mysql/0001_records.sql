-- MySQL commits each of these by itself, so they can be run again after a crash.

-- The one program that writes. A write holds this row, so that a connection that was lost cannot commit later.
CREATE TABLE IF NOT EXISTS writer (
    id BIGINT PRIMARY KEY,
    owner BIGINT NOT NULL,
    batch BIGINT NOT NULL
) ENGINE = InnoDB;
INSERT IGNORE INTO writer (id, owner, batch) VALUES (1, 0, 0);

-- Times are in seconds since 1970. A passkey without expiry does not expire.
CREATE TABLE IF NOT EXISTS passkeys (
    passkey VARBINARY(64) NOT NULL PRIMARY KEY,
    expires BIGINT,
    note TEXT,
    owner TEXT,
    created BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS allowed (info_hash VARBINARY(20) NOT NULL PRIMARY KEY) ENGINE = InnoDB, CHARACTER SET = utf8mb4;
CREATE TABLE IF NOT EXISTS denied (info_hash VARBINARY(20) NOT NULL PRIMARY KEY) ENGINE = InnoDB, CHARACTER SET = utf8mb4;

-- A network, or ISD-AS,network for hosts over SCION.
CREATE TABLE IF NOT EXISTS bans (
    target VARCHAR(80) NOT NULL PRIMARY KEY,
    expires BIGINT,
    reason TEXT NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4;

-- ISDs separated by commas.
CREATE TABLE IF NOT EXISTS isolations (
    info_hash VARBINARY(20) NOT NULL PRIMARY KEY,
    isds TEXT NOT NULL,
    proven BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4;

-- Rules as JSON. The empty info hash stands for all torrents.
CREATE TABLE IF NOT EXISTS rules (
    info_hash VARBINARY(20) NOT NULL PRIMARY KEY,
    rules MEDIUMTEXT NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4;

CREATE TABLE IF NOT EXISTS completed (
    info_hash VARBINARY(20) NOT NULL PRIMARY KEY,
    downloads BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET = utf8mb4;
