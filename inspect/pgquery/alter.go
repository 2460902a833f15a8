package pgquery

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// alterLocks are the lock modes of the forms of ALTER TABLE that take less
// than ACCESS EXCLUSIVE. Source: AlterTableGetLockLevel in tablecmds.c.
var alterLocks = map[pg.AlterTableType]inspect.LockMode{
	pg.AlterTableType_AT_SetStatistics:      inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_SetOptions:         inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_ResetOptions:       inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_SetRelOptions:      inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_ResetRelOptions:    inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_ClusterOn:          inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_DropCluster:        inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_ValidateConstraint: inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_AttachPartition:    inspect.ShareUpdateExclusive,
	pg.AlterTableType_AT_EnableTrig:         inspect.ShareRowExclusive,
	pg.AlterTableType_AT_EnableAlwaysTrig:   inspect.ShareRowExclusive,
	pg.AlterTableType_AT_EnableReplicaTrig:  inspect.ShareRowExclusive,
	pg.AlterTableType_AT_EnableTrigAll:      inspect.ShareRowExclusive,
	pg.AlterTableType_AT_EnableTrigUser:     inspect.ShareRowExclusive,
	pg.AlterTableType_AT_DisableTrig:        inspect.ShareRowExclusive,
	pg.AlterTableType_AT_DisableTrigAll:     inspect.ShareRowExclusive,
	pg.AlterTableType_AT_DisableTrigUser:    inspect.ShareRowExclusive,
}

// alterTable takes the strongest lock of its forms. Attaching a partition to
// an index looks the same and takes the same.
func (w *walker) alterTable(s *pg.AlterTableStmt) {
	w.st.Kind = tag("ALTER", s.Objtype)
	if s.Objtype == pg.ObjectType_OBJECT_TYPE {
		return
	}
	target := named(s.Relation, inspect.AccessDefine, inspect.NoLock)
	for _, n := range s.Cmds {
		cmd := n.GetAlterTableCmd()
		target.Lock = max(target.Lock, w.alterCmd(cmd))
		target.Rewrite = target.Rewrite || w.rewrites(cmd)
	}
	w.rels.add(target)
}

// alterCmd walks one form of ALTER TABLE and returns the lock it takes on the
// table.
func (w *walker) alterCmd(cmd *pg.AlterTableCmd) inspect.LockMode {
	switch v := cmd.GetDef().GetNode().(type) {
	case *pg.Node_ColumnDef:
		w.column(v.ColumnDef)
	case *pg.Node_Constraint:
		w.references(v.Constraint)
		if v.Constraint.Contype == pg.ConstrType_CONSTR_FOREIGN && cmd.Subtype == pg.AlterTableType_AT_AddConstraint {
			return inspect.ShareRowExclusive
		}
	case *pg.Node_PartitionCmd:
		return w.partition(cmd.Subtype, v.PartitionCmd)
	case *pg.Node_RangeVar: // INHERIT and NO INHERIT name a parent
		w.touch(v.RangeVar, inspect.ShareUpdateExclusive)
	}
	if lock, ok := alterLocks[cmd.GetSubtype()]; ok {
		return lock
	}
	return inspect.AccessExclusive
}

// partition is ATTACH and DETACH PARTITION.
func (w *walker) partition(t pg.AlterTableType, cmd *pg.PartitionCmd) inspect.LockMode {
	w.touch(cmd.Name, inspect.AccessExclusive)
	switch {
	case cmd.Concurrent:
		w.st.Concurrently, w.st.NoBlock = true, true
		return inspect.ShareUpdateExclusive
	case t == pg.AlterTableType_AT_AttachPartition, t == pg.AlterTableType_AT_DetachPartitionFinalize:
		return inspect.ShareUpdateExclusive
	default:
		return inspect.AccessExclusive
	}
}

// rewriting are the forms that write the table anew whatever it holds. A new
// type of a column does so in most cases; the old one is not known here.
var rewriting = map[pg.AlterTableType]bool{
	pg.AlterTableType_AT_AlterColumnType: true,
	pg.AlterTableType_AT_SetLogged:       true,
	pg.AlterTableType_AT_SetUnLogged:     true,
	pg.AlterTableType_AT_SetTableSpace:   true,
	pg.AlterTableType_AT_SetAccessMethod: true,
}

func (w *walker) rewrites(cmd *pg.AlterTableCmd) bool {
	if rewriting[cmd.GetSubtype()] {
		return true
	}
	return cmd.GetSubtype() == pg.AlterTableType_AT_AddColumn && w.fillsColumn(cmd.GetDef().GetColumnDef())
}

// fillsColumn reports whether a new column has another value in each row:
// serial, identity, generated, or a default that is volatile or may be.
func (w *walker) fillsColumn(c *pg.ColumnDef) bool {
	if isSerial(c.GetTypeName()) {
		return true
	}
	for _, n := range c.GetConstraints() {
		k := n.GetConstraint()
		switch {
		case k.GetContype() == pg.ConstrType_CONSTR_IDENTITY, k.GetContype() == pg.ConstrType_CONSTR_GENERATED:
			return true
		case k.GetContype() == pg.ConstrType_CONSTR_DEFAULT && w.search.mayBeVolatile(k.RawExpr):
			return true
		}
	}
	return false
}

func isSerial(t *pg.TypeName) bool {
	_, name, _ := nameOf(t.GetNames())
	return strings.HasPrefix(name, "serial") || name == "bigserial" || name == "smallserial"
}
