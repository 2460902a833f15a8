CREATE TABLE entries (
	id INTEGER PRIMARY KEY,
	time INTEGER NOT NULL,          -- microseconds since 1970, UTC
	kind TEXT NOT NULL,
	session INTEGER NOT NULL,
	server_pid INTEGER NOT NULL,
	user TEXT NOT NULL,
	database TEXT NOT NULL,
	application TEXT NOT NULL,
	address TEXT NOT NULL,
	tx TEXT NOT NULL,
	fingerprint INTEGER NOT NULL,   -- the 64 bits, signed
	class TEXT NOT NULL,
	statement TEXT NOT NULL,
	tables TEXT NOT NULL,
	rows INTEGER NOT NULL,
	duration_ns INTEGER NOT NULL,
	verdict TEXT NOT NULL,
	rule TEXT NOT NULL,
	sqlstate TEXT NOT NULL,
	outcome TEXT NOT NULL,
	action TEXT NOT NULL,
	reason TEXT NOT NULL,
	detail TEXT NOT NULL,
	count INTEGER NOT NULL
);
CREATE INDEX entries_time ON entries (time);
CREATE INDEX entries_open ON entries (session, tx) WHERE kind = 'statement' AND outcome = 'ok' AND tx <> '';
