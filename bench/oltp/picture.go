package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

// colours of the targets, in their order; they differ in lightness, too.
var colours = []string{"#6b7280", "#d97706", "#a3a3a3", "#1d4ed8", "#60a5fa"}

// A picture is a white card, legible on pages that are dark or light.
const style = `<style>text{font:12px sans-serif;fill:#111}.t{font-size:14px;font-weight:bold}.g{stroke:#ddd}.one{stroke:#111;stroke-dasharray:4 3}</style>`

// drawing collects the parts of an SVG.
type drawing struct{ strings.Builder }

func newDrawing(width, height int, title string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(d, "<title>%s</title>%s\n<rect width=\"100%%\" height=\"100%%\" rx=\"6\" fill=\"#fff\"/>\n", html.EscapeString(title), style)
	d.text(10, 20, "t", "start", title)
	return d
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(s))
}

func (d *drawing) rule(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (d *drawing) bar(x, y, width, height float64, colour string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, colour)
}

// legend names a colour and returns where the next may stand.
func (d *drawing) legend(x, y float64, colour, name string) float64 {
	d.bar(x, y-9, 10, 10, colour)
	d.text(x+14, y, "", "start", name)
	return x + 30 + 7*float64(len(name))
}

func (d *drawing) end() string {
	d.WriteString("</svg>\n")
	return d.String()
}

func colourOf(target string) string {
	for i, name := range targetNames() {
		if name == target {
			return colours[i]
		}
	}
	return "#000"
}

// chart is a picture of bars: groups of one for each target.
type chart struct {
	title, unit string
	series      []string // targets
	marks       []float64
	groups      []group
}

type group struct {
	name string
	bars []float64 // one for each of the series; 0 is nothing to show
}

// svg draws the chart.
func (c *chart) svg() string {
	const right, top, thick, gap, width = 60, 36, 14, 12, 860
	most, left := 0.0, 100.0
	for _, g := range c.groups {
		left = math.Max(left, 20+6.6*float64(utf8.RuneCountInString(g.name)))
		for _, v := range append(g.bars, c.marks...) {
			most = math.Max(most, v)
		}
	}
	step := stepOf(most)
	most = roundUp(most)
	bottom := float64(top + len(c.groups)*(len(c.series)*thick+gap))
	d := newDrawing(width, int(bottom)+50, c.title)
	px := func(v float64) float64 { return left + v/most*(width-left-right) }
	for v := 0.0; v <= most+step/2; v += step {
		d.rule("g", px(v), top-6, px(v), bottom)
		d.text(px(v), bottom+14, "", "middle", plain(v))
	}
	d.text(width-right, bottom+38, "", "end", c.unit)
	y := float64(top)
	for _, g := range c.groups {
		d.text(left-8, y+float64(thick*len(g.bars))/2+4, "", "end", g.name)
		for i, v := range g.bars {
			if v > 0 {
				d.bar(left, y, px(v)-left, thick-2, colourOf(c.series[i]))
				d.text(px(v)+4, y+thick-3, "", "start", plain(v))
			}
			y += thick
		}
		y += gap
	}
	for _, v := range c.marks {
		d.rule("one", px(v), top-6, px(v), bottom)
	}
	x := left
	for _, name := range c.series {
		x = d.legend(x, bottom+38, colourOf(name), name)
	}
	return d.end()
}

// stepOf returns a round distance of about a sixth of most.
func stepOf(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/6)))
	for _, f := range []float64{1, 2, 5} {
		if most/(f*power) <= 7 {
			return f * power
		}
	}
	return 10 * power
}

// roundUp returns the end of an axis for most: a whole number of its steps.
func roundUp(most float64) float64 {
	step := stepOf(most)
	return math.Max(math.Ceil(most/step), 1) * step
}

// charts draws what the scenarios, the memory and the system calls gave.
func (r *results) charts() map[string]*chart {
	all := map[string]*chart{"goals": r.shares()}
	if len(r.tables) > 0 {
		proxies := r.tables[0].proxies()
		cpu := &chart{title: "Proxy CPU for each transaction or stream, relative to PgBouncer in session mode", unit: "÷ PgBouncer", series: proxies, marks: []float64{1}}
		rate := &chart{title: "Throughput, relative to no proxy", unit: "÷ direct", series: proxies, marks: []float64{1}}
		latency := &chart{title: "Median latency added to that without a proxy, 1 client, lowest rounds", unit: "µs", series: proxies}
		for _, t := range r.tables {
			cpu.add(t.scenario.name, func(p string) float64 { return median(t.ratios(p, pgbouncer, cpuOf)) })
			rate.add(t.scenario.name, func(p string) float64 { return median(t.ratios(p, direct, rateOf)) })
			if t.scenario.clients == 1 { // more wait for each other where there are few processors
				latency.add(t.scenario.name, func(p string) float64 { return t.added(p) * 1e6 })
			}
		}
		all["cpu"], all["throughput"] = cpu, rate
		if len(latency.groups) > 0 {
			all["latency"] = latency
		}
	}
	if r.memory != nil {
		c := &chart{title: "Memory of each idle session", unit: "kB", series: []string{poll, goroutines}}
		for _, n := range idleSessions {
			c.add(fmt.Sprintf("%d sessions", n), func(target string) float64 { return r.memory.each[engineOf[target]][n] / 1000 })
		}
		all["memory"] = c
	}
	if r.calls != nil && len(r.calls.all) > 0 {
		all["system-calls"] = r.calls.chart()
	}
	return all
}

func (c *chart) add(name string, of func(target string) float64) {
	g := group{name: name}
	for _, target := range c.series {
		g.bars = append(g.bars, of(target))
	}
	c.groups = append(c.groups, g)
}

func (t *callTables) chart() *chart {
	c := &chart{title: "System calls for each transaction, pgbench -S -M simple", unit: "calls"}
	by := map[int]map[string]float64{}
	for i := range t.all {
		x := &t.all[i]
		if by[x.clients] == nil {
			by[x.clients] = map[string]float64{}
		}
		by[x.clients][x.target] = x.total()
	}
	for _, name := range targetNames() {
		if _, ok := by[t.all[0].clients][name]; ok {
			c.series = append(c.series, name)
		}
	}
	for _, clients := range callClients {
		c.add(fmt.Sprintf("%d clients", clients), func(target string) float64 { return by[clients][target] })
	}
	return c
}
