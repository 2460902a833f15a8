package main

import (
	"errors"
	"fmt"
	"go/scanner"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// engineFiles tells by its name which engine a file of proxy/engine belongs to;
// what is neither's is shared.
var engineFiles = []struct {
	engine string
	files  *regexp.Regexp
}{
	{poll, regexp.MustCompile(`^(poll|socket|stream)`)},
	{goroutines, regexp.MustCompile(`^(routines|write|catchup|unread)`)},
	{"both", regexp.MustCompile(``)},
}

// code is what the engines cost in code, and how many tests both pass.
type code struct {
	engines []engineCode
	tests   int
}

type engineCode struct {
	engine string
	files  []string
	lines  int // without comments and blank lines
	tests  int // the same, of its own tests
}

// countCode counts in the repository that root is the top of.
func countCode(root string) (*code, error) {
	engines, err := countEngines(filepath.Join(root, "proxy", "engine"))
	if err != nil {
		return nil, err
	}
	tests, err := testsOfBoth(root)
	return &code{engines, tests}, err
}

func countEngines(folder string) ([]engineCode, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	all := make([]engineCode, len(engineFiles))
	for i := range all {
		all[i].engine = engineFiles[i].engine
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		base := filepath.Base(name)
		i := 0
		for !engineFiles[i].files.MatchString(base) {
			i++
		}
		if strings.HasSuffix(base, "_test.go") {
			all[i].tests += codeLines(text)
			continue
		}
		all[i].files = append(all[i].files, base)
		all[i].lines += codeLines(text)
	}
	return all, nil
}

// codeLines counts the lines on which a token begins.
func codeLines(text []byte) int {
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(text))
	s.Init(file, text, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if tok != token.SEMICOLON || lit == ";" { // others are the ends of lines
			lines[file.Line(pos)] = true
		}
	}
}

// testsOfBoth returns how many tests "make test" runs on both engines.
func testsOfBoth(root string) (int, error) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return 0, err
	}
	names, err := filepath.Glob(filepath.Join(root, "proxy", "*_test.go"))
	if err != nil {
		return 0, err
	}
	pattern, err := patternOfBoth(string(makefile))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		for _, test := range testFunction.FindAllStringSubmatch(string(text), -1) {
			if pattern.MatchString(test[1]) {
				n++
			}
		}
	}
	return n, nil
}

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	makeVariable = regexp.MustCompile(`(?m)^(\w+) = (.*)$`)
	engineTests  = regexp.MustCompile(`(?m)^\tLOCKKEEPER_TEST_ENGINE=.* -run '([^']*)'`)
)

// patternOfBoth finds which tests the Makefile runs on the engine that is not
// the default.
func patternOfBoth(makefile string) (*regexp.Regexp, error) {
	m := engineTests.FindStringSubmatch(makefile)
	if m == nil {
		return nil, errors.New("the Makefile has no line of tests with LOCKKEEPER_TEST_ENGINE")
	}
	pattern := m[1]
	for _, v := range makeVariable.FindAllStringSubmatch(makefile, -1) {
		pattern = strings.ReplaceAll(pattern, "$("+v[1]+")", v[2])
	}
	return regexp.Compile(pattern)
}

func (c *code) print(out io.Writer) {
	fmt.Fprint(out, "\n## What each engine costs in code\n\nLines of proxy/engine without comments and blank lines.\n\n| engine | files | lines | of tests of its own |\n|---|---|---|---|\n")
	for _, e := range c.engines {
		fmt.Fprintf(out, "| %s | %s | %d | %d |\n", e.engine, strings.Join(e.files, ", "), e.lines, e.tests)
	}
	fmt.Fprintf(out, "\n%d tests of the protocol are run by `make test` on both engines.\n", c.tests)
}
