package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// colours of targets and variants, in their order; they differ in lightness,
// too.
var colours = []string{"#6b7280", "#d97706", "#a3a3a3", "#1d4ed8", "#60a5fa"}

const style = `<style>text{font:12px sans-serif;fill:#111}.t{font-size:14px;font-weight:bold}.g{stroke:#ddd}.one{stroke:#111;stroke-dasharray:4 3}</style>`

// drawing collects the parts of an SVG.
type drawing struct{ strings.Builder }

func newDrawing(width, height int, title string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(d, "<title>%s</title>%s\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", html.EscapeString(title), style)
	d.text(10, 20, "t", "start", title)
	return d
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(s))
}

func (d *drawing) rule(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
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

// bars shows the CPU of each proxy relative to PgBouncer's, one group for each
// scenario.
func bars(tables []*table) string {
	const left, right, top, bar, gap, width = 130, 60, 40, 14, 14, 760
	height, most := top+30, 1.0
	for _, t := range tables {
		height += gap + bar*len(t.proxies())
		for _, name := range t.proxies() {
			most = math.Max(most, median(t.ratios(name, pgbouncer, cpuOf)))
		}
	}
	scale := float64(width-left-right) / most
	d := newDrawing(width, height, "Proxy CPU per transaction, relative to PgBouncer in session mode")
	y := float64(top)
	for _, t := range tables {
		d.text(left-8, y+float64(bar*len(t.proxies()))/2+4, "", "end", t.scenario.name)
		for _, name := range t.proxies() {
			x := median(t.ratios(name, pgbouncer, cpuOf))
			fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, x*scale, bar-2, colourOf(name))
			d.text(left+x*scale+4, y+bar-4, "", "start", number(x))
			y += bar
		}
		y += gap
	}
	d.rule("one", left+scale, top-6, left+scale, y)
	x := float64(left)
	for _, name := range tables[0].proxies() {
		x = d.legend(x, float64(height)-8, colourOf(name), name)
	}
	return d.end()
}

// proxies are the targets whose CPU is measured.
func (t *table) proxies() []string {
	var out []string
	for _, name := range t.targets {
		if name != direct {
			out = append(out, name)
		}
	}
	return out
}

// legend names a colour and returns where the next may stand.
func (d *drawing) legend(x, y float64, colour, name string) float64 {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="10" height="10" fill="%s"/>`+"\n", x, y-9, colour)
	d.text(x+14, y, "", "start", name)
	return x + 30 + 7*float64(len(name))
}

// lines shows the longest transaction of the others in each quarter of a
// second.
func lines(c *chronicle) string {
	const left, right, top, bottom, width, height = 60, 20, 40, 60, 760, 340
	most := time.Second
	for i := range c.courses {
		most = max(most, c.courses[i].longest)
	}
	px := func(t time.Duration) float64 {
		return left + float64(t)/float64(loadEnds)*(width-left-right)
	}
	py := func(t time.Duration) float64 {
		return height - bottom - float64(t)/float64(most)*(height-top-bottom)
	}
	d := newDrawing(width, height, c.incident.name+": the longest transaction of the others, in seconds")
	for t := time.Duration(0); t <= most; t += max(time.Second, (most / 5).Round(time.Second)) {
		d.rule("g", left, py(t), width-right, py(t))
		d.text(left-6, py(t)+4, "", "end", fmt.Sprintf("%.0f s", t.Seconds()))
	}
	for t := time.Duration(0); t <= loadEnds; t += 2 * time.Second {
		d.text(px(t), height-bottom+16, "", "middle", fmt.Sprintf("%.0f s", t.Seconds()))
	}
	d.rule("one", px(strikeAt), top, px(strikeAt), height-bottom)
	d.text(px(strikeAt)+4, top+12, "", "start", strings.Fields(c.incident.statement)[0])
	x := float64(left)
	for i := range c.courses {
		colour := colours[[]int{0, 1, 3}[min(i, 2)]]
		if c.courses[i].variant.target == poll {
			colour = colours[3]
		}
		var points strings.Builder
		for j, v := range c.courses[i].series {
			fmt.Fprintf(&points, "%.1f,%.1f ", px(min(time.Duration(j)*bucket, loadEnds)), py(v))
		}
		fmt.Fprintf(d, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", colour, strings.TrimSpace(points.String()))
		x = d.legend(x, height-14, colour, c.courses[i].variant.says)
	}
	return d.end()
}
