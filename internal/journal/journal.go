// Package journal keeps the evidence: who changed what, what was refused and what operators did.
package journal
