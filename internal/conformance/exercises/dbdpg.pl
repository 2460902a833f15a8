# DBD::Pg: libpq with prepared statements of the server, COPY, asynchronous
# queries, large objects by function call, notifications, savepoints.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);

sub connected { DBI->connect("dbi:Pg:", undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1, pg_enable_utf8 => 0, @_ }) }

sub show { print join(" ", map { defined $_ ? "<$_>" : "undef" } @_), "\n" }

sub refused {
	my ($dbh, $code) = @_;
	eval { $code->(); 1 } and return show("not refused");
	(my $text = $dbh->errstr // $@) =~ s/\n/ | /g;
	show($dbh->state, $text);
}

my @steps = (
	connection => sub {
		my $dbh = connected();
		show($dbh->{pg_standard_conforming_strings}, int($dbh->{pg_server_version} / 10000), $dbh->ping);
		show($dbh->selectrow_array("SELECT pg_backend_pid()") == $dbh->{pg_pid});
		show($dbh->selectrow_array("SELECT current_setting('application_name') <> ''"));
	},
	prepared => sub {
		my $dbh = connected(pg_server_prepare => 1, pg_switch_prepared => 1);
		my $sth = $dbh->prepare("SELECT ?::int + g, ?::text FROM generate_series(1, 5) g");
		for my $n (1 .. 5) {
			$sth->execute($n, "t$n");
			show(map { join ",", @$_ } @{ $sth->fetchall_arrayref });
		}
		show(@{ $sth->{NAME} }, @{ $sth->{pg_type} });
		refused($dbh, sub { $sth->execute("no number", "x") });
		$sth->execute(9, undef);
		show($sth->rows);
		show($dbh->selectrow_array("SELECT count(*) FROM pg_prepared_statements"));
		undef $sth;
		my $bin = $dbh->prepare("SELECT length(?)");
		$bin->bind_param(1, "\0\1\2\xff", { pg_type => PG_BYTEA });
		$bin->execute;
		show($bin->fetchrow_array);
	},
	transactions => sub {
		my $dbh = connected(AutoCommit => 0);
		$dbh->do("CREATE TEMP TABLE tx (id int PRIMARY KEY)");
		$dbh->do("INSERT INTO tx VALUES (1)");
		$dbh->pg_savepoint("one");
		refused($dbh, sub { $dbh->do("INSERT INTO tx VALUES (1)") });
		show($dbh->ping);
		$dbh->pg_rollback_to("one");
		$dbh->pg_release("one");
		$dbh->do("INSERT INTO tx VALUES (2)");
		$dbh->commit;
		show(@{ $dbh->selectcol_arrayref("SELECT id FROM tx ORDER BY 1") });
		$dbh->rollback;
	},
	copying => sub {
		my $dbh = connected();
		$dbh->do("CREATE TEMP TABLE copied (id int, t text)");
		$dbh->do("COPY copied FROM STDIN");
		$dbh->pg_putcopydata("$_\ttext $_\n") for 1 .. 3000;
		show($dbh->pg_putcopyend);
		$dbh->do("COPY copied TO STDOUT (FORMAT binary)");
		my ($size, $data) = (0);
		while ($dbh->pg_getcopydata(\$data) >= 0) { $size += length $data }
		show($size);
		$dbh->do("COPY copied FROM STDIN");
		$dbh->pg_putcopydata("no number\tx\n");
		refused($dbh, sub { $dbh->pg_putcopyend });
		show($dbh->selectrow_array("SELECT count(*) FROM copied"));
	},
	asynchronous => sub {
		my ($dbh, $other) = (connected(), connected());
		$dbh->do("SELECT pg_sleep(60)", { pg_async => PG_ASYNC });
		# PostgreSQL drops a cancel request that comes before its statement has begun.
		for (1 .. 300) {
			last if $other->selectrow_array("SELECT count(*) FROM pg_stat_activity WHERE pid = ? AND wait_event = 'PgSleep'", undef, $dbh->{pg_pid});
			select undef, undef, undef, 0.1;
		}
		show($dbh->pg_ready, $dbh->pg_cancel);
		show($dbh->selectrow_array("SELECT 'still here'"));
		my $sth = $dbh->prepare("SELECT count(*) FROM generate_series(1, 100000)", { pg_async => PG_ASYNC });
		$sth->execute;
		show($sth->pg_result, $sth->fetchrow_array);
	},
	large_objects => sub {
		my $dbh = connected(AutoCommit => 0);
		my $id = $dbh->pg_lo_creat($dbh->{pg_INV_READ} | $dbh->{pg_INV_WRITE});
		my $fd = $dbh->pg_lo_open($id, $dbh->{pg_INV_WRITE});
		show($dbh->pg_lo_write($fd, "abc" x 50000, 150000), $dbh->pg_lo_lseek($fd, 5, 0), $dbh->pg_lo_tell($fd));
		my $buf;
		show($dbh->pg_lo_read($fd, $buf, 10), $buf);
		$dbh->pg_lo_close($fd);
		show($dbh->pg_lo_unlink($id));
		$dbh->commit;
	},
	notifications => sub {
		my ($dbh, $other) = (connected(), connected());
		$dbh->do("LISTEN chan");
		$other->do("NOTIFY chan, 'payload'");
		my $n;
		for (1 .. 300) { $dbh->do("SELECT 1"); last if $n = $dbh->pg_notifies; select undef, undef, undef, 0.1 }
		show($n->[0], $n->[1] == $other->{pg_pid}, $n->[2]);
	},
	catalogue => sub {
		my $dbh = connected();
		$dbh->do("CREATE TEMP TABLE looked_at (id serial PRIMARY KEY, n numeric(10,2) NOT NULL, t varchar(20))");
		my $sth = $dbh->column_info(undef, "pg_temp%", "looked_at", "%");
		show(map { $_ // "" } @{$_}[ 3, 4, 5, 6, 10 ]) for @{ $sth->fetchall_arrayref };
		show($dbh->primary_key(undef, undef, "looked_at"));
		show($dbh->quote("it's \\ a 'test'"), $dbh->quote("\0\xff", { pg_type => PG_BYTEA }), $dbh->quote_identifier("a\"b"));
		$dbh->do("INSERT INTO looked_at (n) VALUES (1)");
		show($dbh->last_insert_id(undef, undef, "looked_at", undef));
	},
	ended => sub {
		my ($dbh, $other) = (connected(), connected());
		$other->do("SELECT pg_terminate_backend(?, 10000)", undef, $dbh->{pg_pid});
		refused($dbh, sub { $dbh->do("SELECT 1") });
		show($dbh->ping);
	},
);

while (my ($name, $step) = splice @steps, 0, 2) {
	print "== $name\n";
	eval { $step->(); 1 } or do { (my $e = $@) =~ s/\n/ | /g; print "!! $e\n" };
}
