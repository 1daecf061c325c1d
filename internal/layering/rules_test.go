package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxFunction = 60  // maximum number of lines of a function
	maxMethods  = 20  // maximum number of methods of a type
	maxComment  = 120 // maximum number of columns of a comment line
)

// tables lists the functions, as folder and name, that may have more than maxFunction lines, because they are lists of
// cases.
var tables = []string{
	"kernels/cuda/softgpu makeExpressions", "kernels/kernelstest cases", "kernels/kernelstest mistakes",
}

// TestShapes limits the number of lines of a function and the number of methods of a type, except in tests, generators
// and generated files. It limits the width of comment lines, except in generated files.
func TestShapes(t *testing.T) {
	root := "../.."
	methods := map[string]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "build"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		generated := strings.Contains(string(text), "DO NOT EDIT")
		for i, line := range strings.Split(string(text), "\n") {
			if n := utf8.RuneCountInString(line); n > maxComment && !generated && strings.HasPrefix(strings.TrimSpace(line), "//") {
				t.Errorf("%s:%d: a comment of %d columns", path, i+1, n)
			}
		}
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/_") {
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, parser.ParseComments)
		if err != nil || ast.IsGenerated(file) {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			folder := strings.TrimPrefix(filepath.Dir(path), root+"/")
			lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1
			if lines > maxFunction && !slices.Contains(tables, folder+" "+f.Name.Name) {
				t.Errorf("%s: %s has %d lines", path, f.Name.Name, lines)
			}
			if f.Recv != nil {
				methods[folder+" "+receiver(f.Recv.List[0].Type)]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(methods) < 50 {
		t.Errorf("only %d types have methods", len(methods))
	}
	for name, n := range methods {
		if n > maxMethods {
			t.Errorf("%s has %d methods", name, n)
		}
	}
}

// receiver returns the name of the type in a method's receiver, whose type expression is e.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// TestPoolIsShort limits the number of lines in which package pool reads, computes and writes.
func TestPoolIsShort(t *testing.T) {
	lines := 0
	for _, name := range []string{"read.go", "compute.go", "write.go"} {
		text, err := os.ReadFile(filepath.Join("../../pool", name))
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(text), "\n")
	}
	if lines > 600 {
		t.Errorf("read.go, compute.go and write.go of pool have %d lines", lines)
	}
}
