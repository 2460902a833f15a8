package pgquery

import (
	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// fromTable records a table that is read, unless the name is a WITH query's.
func (w *walker) fromTable(rv *pg.RangeVar) {
	if w.cte(rv) == nil {
		w.rels.add(named(rv, inspect.AccessRead, inspect.NoLock))
	}
}

func (w *walker) selectStmt(s *pg.SelectStmt) {
	if s == nil {
		return
	}
	w.raise(inspect.Read)
	defer w.with(s.WithClause)()
	if s.IntoClause != nil {
		w.selectInto(s.IntoClause)
	}
	w.nodes(s.DistinctClause)
	w.nodes(s.TargetList)
	w.nodes(s.FromClause)
	w.node(s.WhereClause)
	w.nodes(s.GroupClause)
	w.node(s.HavingClause)
	w.nodes(s.WindowClause)
	w.nodes(s.ValuesLists)
	w.nodes(s.SortClause)
	w.node(s.LimitOffset)
	w.node(s.LimitCount)
	w.setOperand(s.Larg)
	w.setOperand(s.Rarg)
	for _, n := range s.LockingClause {
		w.lockRows(s, n.GetLockingClause())
	}
}

// setOperand walks one side of UNION, INTERSECT or EXCEPT.
func (w *walker) setOperand(s *pg.SelectStmt) {
	if s == nil {
		return
	}
	w.depth++
	if w.depth > maxDepth {
		panic(tooDeepError{})
	}
	defer func() { w.depth-- }()
	w.selectStmt(s)
}

// selectInto is SELECT … INTO: the manual treats it as CREATE TABLE AS.
func (w *walker) selectInto(c *pg.IntoClause) {
	w.raise(inspect.Define)
	w.hide(inspect.HiddenCreateAs)
	w.rels.add(named(c.Rel, inspect.AccessDefine, inspect.NoLock))
}

// lockRows is FOR UPDATE and friends: of the tables it names, or of all in
// FROM, also those inside subselects there (manual, SELECT, The Locking
// Clause).
func (w *walker) lockRows(s *pg.SelectStmt, c *pg.LockingClause) {
	w.hide(inspect.HiddenRowLock)
	if len(c.GetLockedRels()) == 0 {
		w.lockFrom(s.FromClause, "")
		return
	}
	for _, n := range c.GetLockedRels() {
		w.lockFrom(s.FromClause, n.GetRangeVar().GetRelname())
	}
}

// lockFrom marks the tables among FROM items, or only those known as alias.
func (w *walker) lockFrom(items []*pg.Node, alias string) {
	for _, n := range items {
		switch v := n.GetNode().(type) {
		case *pg.Node_RangeVar:
			if w.cte(v.RangeVar) == nil && (alias == "" || alias == aliasOf(v.RangeVar)) {
				w.rels.add(named(v.RangeVar, inspect.AccessLockRows, inspect.NoLock))
			}
		case *pg.Node_JoinExpr:
			w.lockFrom([]*pg.Node{v.JoinExpr.Larg, v.JoinExpr.Rarg}, alias)
		case *pg.Node_RangeTableSample:
			w.lockFrom([]*pg.Node{v.RangeTableSample.Relation}, alias)
		case *pg.Node_RangeSubselect:
			if alias == "" || alias == v.RangeSubselect.Alias.GetAliasname() {
				w.lockFrom(v.RangeSubselect.Subquery.GetSelectStmt().GetFromClause(), "")
			}
		}
	}
}

// aliasOf returns the name under which a table's columns are known.
func aliasOf(rv *pg.RangeVar) string {
	if a := rv.GetAlias().GetAliasname(); a != "" {
		return a
	}
	return rv.GetRelname()
}

func (w *walker) insertStmt(s *pg.InsertStmt) {
	w.raise(inspect.Write)
	defer w.with(s.WithClause)()
	target := named(s.Relation, inspect.AccessInsert, inspect.NoLock)
	if c := s.OnConflictClause; c.GetAction() == pg.OnConflictAction_ONCONFLICT_UPDATE {
		target.Access |= inspect.AccessUpdate
		target.Bound, target.Rows = w.conflictBound(s)
		target.Needs = withSets(nil, c.TargetList)
	}
	w.rels.add(target)
	w.nodes(s.Cols)
	w.node(s.SelectStmt)
	if s.OnConflictClause != nil {
		w.message(s.OnConflictClause.ProtoReflect())
	}
	w.nodes(s.ReturningList)
}

func (w *walker) updateStmt(s *pg.UpdateStmt) {
	w.raise(inspect.Write)
	defer w.with(s.WithClause)()
	target := named(s.Relation, inspect.AccessUpdate, inspect.NoLock)
	w.whereBound(&target, s.Relation, s.FromClause, s.WhereClause)
	target.Needs = withSets(target.Needs, s.TargetList)
	w.rels.add(target)
	w.nodes(s.TargetList)
	w.nodes(s.FromClause)
	w.node(s.WhereClause)
	w.nodes(s.ReturningList)
}

func (w *walker) deleteStmt(s *pg.DeleteStmt) {
	w.raise(inspect.Write)
	defer w.with(s.WithClause)()
	target := named(s.Relation, inspect.AccessDelete, inspect.NoLock)
	w.whereBound(&target, s.Relation, s.UsingClause, s.WhereClause)
	w.rels.add(target)
	w.nodes(s.UsingClause)
	w.node(s.WhereClause)
	w.nodes(s.ReturningList)
}

func (w *walker) mergeStmt(s *pg.MergeStmt) {
	w.raise(inspect.Write)
	defer w.with(s.WithClause)()
	target := named(s.Relation, 0, inspect.NoLock)
	for _, n := range s.MergeWhenClauses {
		when := n.GetMergeWhenClause()
		target.Access |= mergeAccess(when.GetCommandType())
		w.node(when.GetCondition())
		w.nodes(when.GetTargetList())
		w.nodes(when.GetValues())
	}
	if target.Access == 0 {
		target.Access = inspect.AccessRead
	}
	target.Bound, target.Rows, target.Needs = w.mergeBound(s)
	w.rels.add(target)
	w.node(s.SourceRelation)
	w.node(s.JoinCondition)
}

func mergeAccess(c pg.CmdType) inspect.Access {
	return map[pg.CmdType]inspect.Access{
		pg.CmdType_CMD_INSERT: inspect.AccessInsert,
		pg.CmdType_CMD_UPDATE: inspect.AccessUpdate,
		pg.CmdType_CMD_DELETE: inspect.AccessDelete,
	}[c]
}
