package api

import (
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// object is a JSON object.
type object = map[string]any

// TestOpenAPIDescribesTheRoutes compares the document with the one that the
// routes and the types of their bodies make; UPDATE_GOLDEN=1 writes it.
func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	want, err := json.MarshalIndent(describeAll(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(want) != string(openAPI) {
		t.Error("openapi.json does not describe the routes: run the test with UPDATE_GOLDEN=1")
	}
}

// describer collects the schemas of named types.
type describer struct{ schemas object }

func describeAll() object {
	d := &describer{schemas: object{}}
	d.ref(reflect.TypeFor[Error]())
	paths := object{}
	for i := range operations {
		op := &operations[i]
		item, ok := paths[op.path].(object)
		if !ok {
			item = object{}
			paths[op.path] = item
		}
		item[strings.ToLower(op.method)] = d.operation(op)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "lockkeeper", "version": "1",
			"description": "The operator's interface of lockkeeper. Durations are written as in 1m30s; roles are viewer, operator and admin, " +
				"each of which may do what the ones before it may.",
		},
		"paths": paths,
		"components": object{
			"schemas":         d.schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
		},
	}
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

func (d *describer) operation(op *operation) object {
	o := object{"operationId": op.id, "summary": op.summary, "responses": d.responses(op)}
	var parameters []any
	for _, m := range pathParameter.FindAllStringSubmatch(op.path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, q := range op.query {
		parameters = append(parameters, object{"name": q, "in": "query", "schema": object{"type": "string"}})
	}
	if parameters != nil {
		o["parameters"] = parameters
	}
	if op.request != nil {
		o["requestBody"] = object{"required": true, "content": jsonContent(d.ref(reflect.TypeOf(op.request)))}
	}
	if op.role != NoRole {
		o["security"] = []any{object{"token": []any{}}}
		o["x-role"] = op.role.String()
	}
	return o
}

func (d *describer) responses(op *operation) object {
	fine := object{"description": "It is so."}
	switch {
	case op.response != nil:
		fine["content"] = jsonContent(d.ref(reflect.TypeOf(op.response)))
	case op.id == "metrics":
		fine["content"] = object{"text/plain": object{}}
	default:
		fine["content"] = object{"application/json": object{}}
	}
	return object{"200": fine, "default": object{
		"description": "It is not; 400 the request, 401 the token, 403 the role, 404 not there, 503 not now, 504 in force but not yet held.",
		"content":     jsonContent(d.ref(reflect.TypeFor[Error]())),
	}}
}

func jsonContent(schema object) object { return object{"application/json": object{"schema": schema}} }

// ref returns a reference to a named type's schema, and describes it.
func (d *describer) ref(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if pkg := t.PkgPath(); !strings.HasSuffix(pkg, "/api") { // as in policy.Explanation
		pkg = pkg[strings.LastIndex(pkg, "/")+1:]
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if _, ok := d.schemas[name]; !ok {
		s := object{"type": "object", "additionalProperties": false}
		d.schemas[name] = s // first, for types that hold themselves
		properties := object{}
		required := []string{}
		d.fields(t, properties, &required)
		slices.Sort(required)
		s["properties"] = properties
		if len(required) > 0 {
			s["required"] = required
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// fields adds a struct's fields, embedded ones as encoding/json does.
func (d *describer) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			d.fields(f.Type, properties, required)
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		if _, outer := properties[name]; outer { // the outer field wins
			continue
		}
		if strings.Contains(options, "string") {
			properties[name] = object{"type": "string", "pattern": "^[0-9]+$"}
		} else {
			properties[name] = d.schema(f.Type)
		}
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

func (d *describer) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "description": "nanoseconds"}
	case t.Implements(textMarshaler):
		return object{"type": "string"}
	}
	switch t.Kind() { //nolint:exhaustive // what the interface does not use fails below
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		return d.ref(t)
	}
	panic(fmt.Sprintf("no schema for %s", t))
}

// conform checks a value against a schema of the document, as far as the
// document uses the language of schemas.
func conform(doc object, schema object, value any, at string) error {
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		return conform(doc, doc["components"].(object)["schemas"].(object)[name].(object), value, at+"("+name+")")
	}
	if !hasType(schema["type"], value) {
		return fmt.Errorf("%s: %T is not %v", at, value, schema["type"])
	}
	switch v := value.(type) {
	case object:
		return conformObject(doc, schema, v, at)
	case []any:
		for i := range v {
			if err := conform(doc, schema["items"].(object), v[i], fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func conformObject(doc, schema, value object, at string) error {
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := value[name.(string)]; !ok {
			return fmt.Errorf("%s: %s is missing", at, name)
		}
	}
	properties, _ := schema["properties"].(object)
	more, open := schema["additionalProperties"].(object)
	for name, v := range value {
		s, ok := properties[name].(object)
		if !ok && !open {
			return fmt.Errorf("%s: %s is not described", at, name)
		}
		if !ok {
			s = more
		}
		if err := conform(doc, s, v, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func hasType(want, value any) bool {
	if list, ok := want.([]any); ok {
		return slices.ContainsFunc(list, func(w any) bool { return hasType(w, value) })
	}
	switch v := value.(type) {
	case nil:
		return want == "null"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && v == float64(int64(v))
	case object:
		return want == "object"
	case []any:
		return want == "array"
	}
	return false
}
