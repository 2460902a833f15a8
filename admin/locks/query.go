package locks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Every name is schema-qualified, operators too, so that nothing in the
// database can stand in for it.

// processes returns every process with whom it is blocked by.
// pg_blocking_pids() stops the lock manager for a moment, so that only those
// are asked about who wait for a lock.
const processes = `
SELECT a.pid,
       COALESCE(a.datname::pg_catalog.text, ''), COALESCE(a.usename::pg_catalog.text, ''),
       COALESCE(a.application_name, ''), COALESCE(pg_catalog.host(a.client_addr), ''), COALESCE(a.backend_type, ''),
       COALESCE(a.state, ''), a.state_change, a.xact_start,
       COALESCE(a.wait_event_type, ''), COALESCE(a.wait_event, ''),
       CASE WHEN a.wait_event_type OPERATOR(pg_catalog.=) 'Lock' THEN pg_catalog.pg_blocking_pids(a.pid) END,
       pg_catalog.clock_timestamp()
FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
ORDER BY a.wait_event_type OPERATOR(pg_catalog.=) 'Lock' DESC NULLS LAST, a.xact_start
LIMIT $1`

// involved returns the locks that matter. waitstart is not there before
// PostgreSQL 14.
const involved = `
SELECT COALESCE(l.pid, 0), l.locktype, l.mode, l.granted, COALESCE(l.database, 0::pg_catalog.oid),
       COALESCE(l.relation, 0::pg_catalog.oid), COALESCE(d.datname::pg_catalog.text, ''),
       (pg_catalog.to_jsonb(l) OPERATOR(pg_catalog.->>) 'waitstart')::pg_catalog.timestamptz
FROM pg_catalog.pg_locks AS l
LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) l.database
WHERE l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND (NOT l.granted
       OR l.locktype OPERATOR(pg_catalog.=) 'relation'
          AND (l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' OR l.pid OPERATOR(pg_catalog.=) ANY ($1)))
ORDER BY l.granted, l.mode OPERATOR(pg_catalog.<>) 'AccessExclusiveLock', l.pid
LIMIT $2`

// relationNames returns the names of relations of the connection's database.
const relationNames = `
SELECT c.oid, n.nspname OPERATOR(pg_catalog.||) '.'::pg_catalog.text OPERATOR(pg_catalog.||) c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1)`

// ownDatabase returns the OID of the connection's database, and whether
// everything in pg_stat_activity can be seen.
const ownDatabase = `SELECT d.oid, pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'
       OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`

// read makes a snapshot; relations have no names yet.
func read(ctx context.Context, conn *pgx.Conn) (*Snapshot, error) {
	all, now, err := readProcesses(ctx, conn)
	if err != nil {
		return nil, err
	}
	snap := &Snapshot{Time: now, Processes: []Process{}, Locks: []Lock{}, Truncated: len(all) >= maxProcesses}
	waiting, blocking := blockers(all)
	snap.Locks, err = readLocks(ctx, conn, append(waiting, blocking...))
	if err != nil {
		return nil, err
	}
	snap.Truncated = snap.Truncated || len(snap.Locks) >= maxLocks
	shown := map[int32]bool{}
	for _, pid := range append(waiting, blocking...) {
		shown[pid] = true
	}
	for i := range snap.Locks {
		shown[snap.Locks[i].PID] = true
	}
	for i := range all {
		if shown[all[i].PID] {
			snap.Processes = append(snap.Processes, all[i])
		}
	}
	if shown[0] {
		snap.Processes = append(snap.Processes, Process{Type: "prepared transactions"})
	}
	return snap, nil
}

func readProcesses(ctx context.Context, conn *pgx.Conn) ([]Process, time.Time, error) {
	var now time.Time
	rows, err := conn.Query(ctx, processes, maxProcesses)
	if err != nil {
		return nil, now, fmt.Errorf("read pg_stat_activity: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Process, error) {
		var p Process
		var stateChange, xactStart *time.Time
		var waitType, wait string
		err := row.Scan(&p.PID, &p.Database, &p.User, &p.Application, &p.Address, &p.Type, &p.State, &stateChange, &xactStart,
			&waitType, &wait, &p.BlockedBy, &now)
		if waitType != "" {
			p.WaitEvent = waitType + ": " + wait
		}
		p.StateSince, p.TxSince = orZero(stateChange), orZero(xactStart)
		slices.Sort(p.BlockedBy)
		p.BlockedBy = slices.Compact(p.BlockedBy) // parallel workers of one leader repeat it
		return p, err
	})
	if err != nil {
		return nil, now, fmt.Errorf("read pg_stat_activity: %w", err)
	}
	return list, now.UTC(), nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// blockers returns the processes that wait for others and those others.
func blockers(all []Process) (waiting, blocking []int32) {
	for i := range all {
		if len(all[i].BlockedBy) > 0 {
			waiting = append(waiting, all[i].PID)
			blocking = append(blocking, all[i].BlockedBy...)
		}
	}
	return waiting, blocking
}

func readLocks(ctx context.Context, conn *pgx.Conn, pids []int32) ([]Lock, error) {
	if pids == nil {
		pids = []int32{}
	}
	rows, err := conn.Query(ctx, involved, pids, maxLocks)
	if err != nil {
		return nil, fmt.Errorf("read pg_locks: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Lock, error) {
		var l Lock
		var since *time.Time
		err := row.Scan(&l.PID, &l.Type, &l.Mode, &l.Granted, &l.databaseOID, &l.relationOID, &l.Database, &since)
		l.Mode, l.WaitingSince = modeName(l.Mode), orZero(since)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read pg_locks: %w", err)
	}
	if list == nil {
		list = []Lock{}
	}
	return list, nil
}

// nameRelations fills in the relations' names, each read in its own
// database; what cannot be read stays an OID and is said.
func (s *Server) nameRelations(ctx context.Context, snap *Snapshot) {
	var own uint32
	var monitor bool
	if err := s.conn.QueryRow(ctx, ownDatabase).Scan(&own, &monitor); err != nil {
		snap.Lacking = append(snap.Lacking, "names of relations: "+err.Error())
	}
	if !monitor {
		snap.Lacking = append(snap.Lacking, "states and addresses of other users' sessions: GRANT pg_monitor TO the control login's role")
	}
	wanted := map[uint32][]uint32{}
	names := map[uint32]string{}
	for i := range snap.Locks {
		l := &snap.Locks[i]
		if l.relationOID != 0 {
			l.Relation = strconv.FormatUint(uint64(l.relationOID), 10)
			wanted[l.databaseOID] = append(wanted[l.databaseOID], l.relationOID)
			names[l.databaseOID] = l.Database
		}
	}
	asked := 0
	for db, oids := range wanted {
		if asked++; asked > maxDatabases {
			snap.Lacking = append(snap.Lacking, fmt.Sprintf("names of relations in more than %d databases", maxDatabases))
			return
		}
		name := names[db]
		if db == own || db == 0 { // shared relations are seen from everywhere
			name = ""
		}
		found, err := s.relations(ctx, name, oids)
		if err != nil {
			snap.Lacking = append(snap.Lacking, fmt.Sprintf("names of relations in database %s: %v", names[db], err))
			continue
		}
		for i := range snap.Locks {
			if l := &snap.Locks[i]; l.databaseOID == db && found[l.relationOID] != "" {
				l.Relation = found[l.relationOID]
			}
		}
	}
}

// relations reads names in a database; in the connection's own where it is
// empty.
func (s *Server) relations(ctx context.Context, database string, oids []uint32) (map[uint32]string, error) {
	conn := s.conn
	if database != "" {
		other, err := Connect(ctx, s.Control, database)
		if err != nil {
			return nil, err
		}
		defer func() { _ = other.Close(ctx) }()
		conn = other
	}
	rows, err := conn.Query(ctx, relationNames, oids)
	if err != nil {
		return nil, err
	}
	found := map[uint32]string{}
	var oid uint32
	var name string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		found[oid] = name
		return nil
	})
	return found, err
}
