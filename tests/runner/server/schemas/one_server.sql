CREATE TABLE projects (
	name TEXT NOT NULL,
	url TEXT NOT NULL,
	file TEXT NOT NULL,
	forge TEXT NOT NULL,
	created FLOAT NOT NULL,
	secret BLOB NOT NULL,
	login BLOB NOT NULL,
	token BLOB NOT NULL,
	trusted TEXT NOT NULL,
	followers TEXT NOT NULL,
	public_badge BOOLEAN NOT NULL,
	PRIMARY KEY (name)
);
CREATE TABLE secrets (
	project TEXT NOT NULL,
	name TEXT NOT NULL,
	kind TEXT NOT NULL,
	sealed BLOB NOT NULL,
	changed FLOAT NOT NULL,
	PRIMARY KEY (project, name)
);
CREATE TABLE mirrors (
	run TEXT NOT NULL,
	digest TEXT NOT NULL,
	PRIMARY KEY (run)
);
CREATE TABLE keeps (
	project TEXT NOT NULL,
	what TEXT NOT NULL,
	most INTEGER NOT NULL,
	days INTEGER NOT NULL,
	PRIMARY KEY (project, what)
);
CREATE TABLE uids (
	project TEXT NOT NULL,
	uid INTEGER NOT NULL,
	PRIMARY KEY (project),
	UNIQUE (uid)
);
CREATE TABLE deliveries (
	id TEXT NOT NULL,
	project TEXT NOT NULL,
	forge TEXT NOT NULL,
	"key" TEXT NOT NULL,
	received FLOAT NOT NULL,
	headers TEXT NOT NULL,
	body BLOB NOT NULL,
	size INTEGER NOT NULL,
	state TEXT NOT NULL,
	note TEXT NOT NULL,
	copies INTEGER NOT NULL,
	tries INTEGER NOT NULL,
	due FLOAT NOT NULL,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX deliveries_key ON deliveries (project, "key") WHERE state != 'refused';
CREATE INDEX deliveries_due ON deliveries (state, due);
CREATE TABLE runs (
	id TEXT NOT NULL,
	project TEXT NOT NULL,
	pipeline TEXT NOT NULL,
	number INTEGER NOT NULL,
	event TEXT NOT NULL,
	found_by TEXT NOT NULL,
	delivery TEXT NOT NULL,
	ref TEXT NOT NULL,
	"commit" TEXT NOT NULL,
	file_commit TEXT NOT NULL,
	fetched_from TEXT NOT NULL,
	chain TEXT NOT NULL,
	"trigger" TEXT NOT NULL,
	params TEXT NOT NULL,
	state TEXT NOT NULL,
	approved_by TEXT NOT NULL,
	outcome TEXT NOT NULL,
	note TEXT NOT NULL,
	pid INTEGER NOT NULL,
	revived INTEGER NOT NULL,
	follow_at FLOAT NOT NULL,
	followed BOOLEAN NOT NULL,
	traced BOOLEAN NOT NULL,
	created FLOAT NOT NULL,
	started FLOAT NOT NULL,
	ended FLOAT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (project, pipeline, event),
	UNIQUE (project, pipeline, number)
);
CREATE INDEX runs_state ON runs (state, created);
CREATE INDEX runs_ended ON runs (project, pipeline, ref, ended);
CREATE TABLE refs (
	project TEXT NOT NULL,
	ref TEXT NOT NULL,
	"commit" TEXT NOT NULL,
	moves INTEGER NOT NULL,
	PRIMARY KEY (project, ref)
);
CREATE TABLE times (
	project TEXT NOT NULL,
	at TEXT NOT NULL,
	zone TEXT NOT NULL,
	looked FLOAT NOT NULL,
	PRIMARY KEY (project, at, zone)
);
CREATE TABLE statuses (
	run TEXT NOT NULL,
	state TEXT NOT NULL,
	description TEXT NOT NULL,
	tries INTEGER NOT NULL,
	due FLOAT NOT NULL,
	told BOOLEAN NOT NULL,
	note TEXT NOT NULL,
	PRIMARY KEY (run)
);
CREATE INDEX statuses_due ON statuses (told, due);
CREATE TABLE people (
	name TEXT NOT NULL,
	password TEXT NOT NULL,
	identity TEXT,
	created FLOAT NOT NULL,
	PRIMARY KEY (name),
	UNIQUE (identity)
);
CREATE TABLE grants (
	person TEXT NOT NULL,
	role TEXT NOT NULL,
	scope TEXT NOT NULL,
	PRIMARY KEY (person, role, scope)
);
CREATE TABLE sessions (
	digest TEXT NOT NULL,
	person TEXT NOT NULL,
	address TEXT NOT NULL,
	created FLOAT NOT NULL,
	seen FLOAT NOT NULL,
	PRIMARY KEY (digest)
);
CREATE INDEX sessions_person ON sessions (person);
CREATE TABLE links (
	digest TEXT NOT NULL,
	person TEXT NOT NULL,
	expires FLOAT NOT NULL,
	PRIMARY KEY (digest)
);
CREATE TABLE targets (
	project TEXT NOT NULL,
	name TEXT NOT NULL,
	url BLOB NOT NULL,
	service TEXT NOT NULL,
	events TEXT NOT NULL,
	created FLOAT NOT NULL,
	PRIMARY KEY (project, name)
);
CREATE TABLE notifications (
	run TEXT NOT NULL,
	event TEXT NOT NULL,
	target TEXT NOT NULL,
	project TEXT NOT NULL,
	tries INTEGER NOT NULL,
	due FLOAT NOT NULL,
	told BOOLEAN NOT NULL,
	note TEXT NOT NULL,
	PRIMARY KEY (run, event, target)
);
CREATE INDEX notifications_due ON notifications (told, due);
CREATE TABLE tokens (
	id TEXT NOT NULL,
	digest TEXT NOT NULL,
	name TEXT NOT NULL,
	person TEXT NOT NULL,
	role TEXT NOT NULL,
	scope TEXT NOT NULL,
	created FLOAT NOT NULL,
	expires FLOAT NOT NULL,
	used FLOAT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (digest)
);
CREATE INDEX tokens_person ON tokens (person);
CREATE TABLE audit (
	id INTEGER NOT NULL,
	at FLOAT NOT NULL,
	who TEXT NOT NULL,
	"by" TEXT NOT NULL,
	address TEXT NOT NULL,
	action TEXT NOT NULL,
	what TEXT NOT NULL,
	project TEXT NOT NULL,
	detail TEXT NOT NULL,
	PRIMARY KEY (id)
);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
