// Package repotest holds the tests of the repository itself: who may import
// whom, and that what the documents say is so.
package repotest
