package pgquery

import pg "github.com/pganalyze/pg_query_go/v5"

// statements reads the whole JSON.
func (d *decoder) statements() (list []*pg.RawStmt) {
	for d.object(); d.field(); {
		switch d.name {
		case "version":
			d.int()
		case "stmts":
			for d.array(); d.more(); {
				list = append(list, d.rawStmt())
			}
		default:
			d.fail()
		}
	}
	return list
}

func (d *decoder) rawStmt() *pg.RawStmt {
	v := &pg.RawStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "stmt":
			v.Stmt = d.node()
		case "stmt_location":
			v.StmtLocation = d.int()
		case "stmt_len":
			v.StmtLen = d.int()
		default:
			d.fail()
		}
	}
	return v
}

// selectStmt reads a query without INTO, which is no query.
func (d *decoder) selectStmt() *pg.SelectStmt {
	v := &pg.SelectStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "distinctClause":
			v.DistinctClause = d.nodes()
		case "targetList":
			v.TargetList = d.nodes()
		case "fromClause":
			v.FromClause = d.nodes()
		case "whereClause":
			v.WhereClause = d.node()
		case "groupClause":
			v.GroupClause = d.nodes()
		case "groupDistinct":
			v.GroupDistinct = d.bool()
		case "havingClause":
			v.HavingClause = d.node()
		case "windowClause":
			v.WindowClause = d.nodes()
		case "valuesLists":
			v.ValuesLists = d.nodes()
		case "sortClause":
			v.SortClause = d.nodes()
		case "limitOffset":
			v.LimitOffset = d.node()
		case "limitCount":
			v.LimitCount = d.node()
		case "limitOption":
			v.LimitOption = pg.LimitOption(d.enum(pg.LimitOption_value))
		case "lockingClause":
			v.LockingClause = d.nodes()
		case "withClause":
			v.WithClause = d.withClause()
		case "op":
			v.Op = pg.SetOperation(d.enum(pg.SetOperation_value))
		case "all":
			v.All = d.bool()
		case "larg":
			v.Larg = d.selectStmt()
		case "rarg":
			v.Rarg = d.selectStmt()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) insertStmt() *pg.InsertStmt {
	v := &pg.InsertStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "relation":
			v.Relation = d.rangeVar()
		case "cols":
			v.Cols = d.nodes()
		case "selectStmt":
			v.SelectStmt = d.node()
		case "onConflictClause":
			v.OnConflictClause = d.onConflictClause()
		case "returningList":
			v.ReturningList = d.nodes()
		case "withClause":
			v.WithClause = d.withClause()
		case "override":
			v.Override = pg.OverridingKind(d.enum(pg.OverridingKind_value))
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) onConflictClause() *pg.OnConflictClause {
	v := &pg.OnConflictClause{}
	for d.object(); d.field(); {
		switch d.name {
		case "action":
			v.Action = pg.OnConflictAction(d.enum(pg.OnConflictAction_value))
		case "infer":
			v.Infer = d.inferClause()
		case "targetList":
			v.TargetList = d.nodes()
		case "whereClause":
			v.WhereClause = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) inferClause() *pg.InferClause {
	v := &pg.InferClause{}
	for d.object(); d.field(); {
		switch d.name {
		case "indexElems":
			v.IndexElems = d.nodes()
		case "whereClause":
			v.WhereClause = d.node()
		case "conname":
			v.Conname = d.word()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

// indexElem reads a column of ON CONFLICT.
func (d *decoder) indexElem() *pg.IndexElem {
	v := &pg.IndexElem{}
	for d.object(); d.field(); {
		switch d.name {
		case "name":
			v.Name = d.word()
		case "expr":
			v.Expr = d.node()
		case "collation":
			v.Collation = d.nodes()
		case "opclass":
			v.Opclass = d.nodes()
		case "opclassopts":
			v.Opclassopts = d.nodes()
		case "ordering":
			v.Ordering = pg.SortByDir(d.enum(pg.SortByDir_value))
		case "nulls_ordering":
			v.NullsOrdering = pg.SortByNulls(d.enum(pg.SortByNulls_value))
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) updateStmt() *pg.UpdateStmt {
	v := &pg.UpdateStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "relation":
			v.Relation = d.rangeVar()
		case "targetList":
			v.TargetList = d.nodes()
		case "whereClause":
			v.WhereClause = d.node()
		case "fromClause":
			v.FromClause = d.nodes()
		case "returningList":
			v.ReturningList = d.nodes()
		case "withClause":
			v.WithClause = d.withClause()
		default:
			d.fail()
		}
	}
	return v
}

// multiAssignRef reads a part of what several columns are set to at once.
func (d *decoder) multiAssignRef() *pg.MultiAssignRef {
	v := &pg.MultiAssignRef{}
	for d.object(); d.field(); {
		switch d.name {
		case "source":
			v.Source = d.node()
		case "colno":
			v.Colno = d.int()
		case "ncolumns":
			v.Ncolumns = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) deleteStmt() *pg.DeleteStmt {
	v := &pg.DeleteStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "relation":
			v.Relation = d.rangeVar()
		case "usingClause":
			v.UsingClause = d.nodes()
		case "whereClause":
			v.WhereClause = d.node()
		case "returningList":
			v.ReturningList = d.nodes()
		case "withClause":
			v.WithClause = d.withClause()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) transactionStmt() *pg.TransactionStmt {
	v := &pg.TransactionStmt{}
	for d.object(); d.field(); {
		switch d.name {
		case "kind":
			v.Kind = pg.TransactionStmtKind(d.enum(pg.TransactionStmtKind_value))
		case "options":
			v.Options = d.nodes()
		case "savepoint_name":
			v.SavepointName = d.string()
		case "gid":
			v.Gid = d.string()
		case "chain":
			v.Chain = d.bool()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) withClause() *pg.WithClause {
	v := &pg.WithClause{}
	for d.object(); d.field(); {
		switch d.name {
		case "ctes":
			v.Ctes = d.nodes()
		case "recursive":
			v.Recursive = d.bool()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) commonTableExpr() *pg.CommonTableExpr {
	v := &pg.CommonTableExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "ctename":
			v.Ctename = d.word()
		case "aliascolnames":
			v.Aliascolnames = d.nodes()
		case "ctematerialized":
			v.Ctematerialized = pg.CTEMaterialize(d.enum(pg.CTEMaterialize_value))
		case "ctequery":
			v.Ctequery = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) rangeVar() *pg.RangeVar {
	v := d.boxes.tables.next()
	for d.object(); d.field(); {
		switch d.name {
		case "catalogname":
			v.Catalogname = d.word()
		case "schemaname":
			v.Schemaname = d.word()
		case "relname":
			v.Relname = d.word()
		case "inh":
			v.Inh = d.bool()
		case "relpersistence":
			v.Relpersistence = d.word()
		case "alias":
			v.Alias = d.alias()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) alias() *pg.Alias {
	v := d.boxes.aliases.next()
	for d.object(); d.field(); {
		switch d.name {
		case "aliasname":
			v.Aliasname = d.word()
		case "colnames":
			v.Colnames = d.nodes()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) joinExpr() *pg.JoinExpr {
	v := &pg.JoinExpr{}
	for d.object(); d.field(); {
		switch d.name {
		case "jointype":
			v.Jointype = pg.JoinType(d.enum(pg.JoinType_value))
		case "isNatural":
			v.IsNatural = d.bool()
		case "larg":
			v.Larg = d.node()
		case "rarg":
			v.Rarg = d.node()
		case "usingClause":
			v.UsingClause = d.nodes()
		case "join_using_alias":
			v.JoinUsingAlias = d.alias()
		case "quals":
			v.Quals = d.node()
		case "alias":
			v.Alias = d.alias()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) rangeSubselect() *pg.RangeSubselect {
	v := &pg.RangeSubselect{}
	for d.object(); d.field(); {
		switch d.name {
		case "lateral":
			v.Lateral = d.bool()
		case "subquery":
			v.Subquery = d.node()
		case "alias":
			v.Alias = d.alias()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) rangeFunction() *pg.RangeFunction {
	v := &pg.RangeFunction{}
	for d.object(); d.field(); {
		switch d.name {
		case "lateral":
			v.Lateral = d.bool()
		case "ordinality":
			v.Ordinality = d.bool()
		case "is_rowsfrom":
			v.IsRowsfrom = d.bool()
		case "functions":
			v.Functions = d.nodes()
		case "alias":
			v.Alias = d.alias()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) sortBy() *pg.SortBy {
	v := d.boxes.sorts.next()
	for d.object(); d.field(); {
		switch d.name {
		case "node":
			v.Node = d.node()
		case "sortby_dir":
			v.SortbyDir = pg.SortByDir(d.enum(pg.SortByDir_value))
		case "sortby_nulls":
			v.SortbyNulls = pg.SortByNulls(d.enum(pg.SortByNulls_value))
		case "useOp":
			v.UseOp = d.nodes()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) windowDef() *pg.WindowDef {
	v := &pg.WindowDef{}
	for d.object(); d.field(); {
		switch d.name {
		case "name":
			v.Name = d.word()
		case "refname":
			v.Refname = d.word()
		case "partitionClause":
			v.PartitionClause = d.nodes()
		case "orderClause":
			v.OrderClause = d.nodes()
		case "frameOptions":
			v.FrameOptions = d.int()
		case "startOffset":
			v.StartOffset = d.node()
		case "endOffset":
			v.EndOffset = d.node()
		case "location":
			v.Location = d.int()
		default:
			d.fail()
		}
	}
	return v
}

func (d *decoder) lockingClause() *pg.LockingClause {
	v := &pg.LockingClause{}
	for d.object(); d.field(); {
		switch d.name {
		case "lockedRels":
			v.LockedRels = d.nodes()
		case "strength":
			v.Strength = pg.LockClauseStrength(d.enum(pg.LockClauseStrength_value))
		case "waitPolicy":
			v.WaitPolicy = pg.LockWaitPolicy(d.enum(pg.LockWaitPolicy_value))
		default:
			d.fail()
		}
	}
	return v
}
