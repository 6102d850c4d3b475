CREATE TABLE projects (
	name TEXT NOT NULL,
	url TEXT NOT NULL,
	file TEXT NOT NULL,
	forge TEXT NOT NULL,
	created FLOAT NOT NULL,
	secret BLOB NOT NULL,
	login BLOB NOT NULL,
	token BLOB NOT NULL,
	PRIMARY KEY (name)
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
	"trigger" TEXT NOT NULL,
	params TEXT NOT NULL,
	state TEXT NOT NULL,
	outcome TEXT NOT NULL,
	note TEXT NOT NULL,
	pid INTEGER NOT NULL,
	revived INTEGER NOT NULL,
	created FLOAT NOT NULL,
	started FLOAT NOT NULL,
	ended FLOAT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (project, pipeline, event),
	UNIQUE (project, pipeline, number)
);
CREATE INDEX runs_state ON runs (state, created);
CREATE TABLE refs (
	project TEXT NOT NULL,
	ref TEXT NOT NULL,
	"commit" TEXT NOT NULL,
	moves INTEGER NOT NULL,
	PRIMARY KEY (project, ref)
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
CREATE TABLE tokens (
	digest TEXT NOT NULL,
	name TEXT NOT NULL,
	created FLOAT NOT NULL,
	PRIMARY KEY (digest)
);
