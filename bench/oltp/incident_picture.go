package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// panel is a part of the picture of an incident: something over time.
type panel struct {
	title string
	top   float64
	most  float64
	ends  time.Duration
}

const (
	panelLeft, panelRight = 70, 20
	panelHeight           = 180
	panelWidth            = 860
)

func (p *panel) x(t time.Duration) float64 {
	return panelLeft + float64(t)/float64(p.ends)*(panelWidth-panelLeft-panelRight)
}

func (p *panel) y(v float64) float64 {
	return p.top + panelHeight - v/p.most*panelHeight
}

// lines shows, over time, how long the longest transaction of the others took
// that ended then, and how many ended.
func lines(c *chronicle) string {
	longest, most, ends := time.Second, 1, loadEnds
	for i := range c.courses {
		longest = max(longest, c.courses[i].longest)
		ends = max(ends, time.Duration(len(c.courses[i].series))*bucket)
		for _, b := range c.courses[i].series {
			most = max(most, b.n)
		}
	}
	slow := &panel{title: "longest transaction of the others, s", top: 62, ends: ends, most: roundUp(longest.Seconds())}
	rate := &panel{title: "transactions of the others, each second", top: 310, ends: ends, most: roundUp(float64(most) * perSecond)}
	d := newDrawing(panelWidth, 560, c.incident.name+": "+c.incident.says)
	for _, p := range []*panel{slow, rate} {
		p.frame(d, c.incident)
	}
	x := float64(panelLeft)
	for i := range c.courses {
		run := &c.courses[i]
		slow.line(d, run, func(b beat) float64 { return b.longest.Seconds() })
		rate.line(d, run, func(b beat) float64 { return float64(b.n) * perSecond })
		x = d.legend(x, 550, run.variant.colour, run.variant.says)
	}
	return d.end()
}

// frame draws axes and what happens when.
func (p *panel) frame(d *drawing, in *incident) {
	d.text(panelLeft, p.top-14, "", "start", p.title)
	step := stepOf(p.most)
	for v := 0.0; v <= p.most+step/2; v += step {
		d.rule("g", panelLeft, p.y(v), panelWidth-panelRight, p.y(v))
		d.text(panelLeft-6, p.y(v)+4, "", "end", plain(v))
	}
	for t := time.Duration(0); t <= p.ends; t += max(time.Second, (p.ends / 20).Round(time.Second)) {
		d.text(p.x(t), p.top+panelHeight+16, "", "middle", fmt.Sprintf("%.0f s", t.Seconds()))
	}
	p.event(d, strikeAt, strings.Fields(in.statement)[0])
	if in.held {
		p.event(d, releaseAt, "the reader commits")
	}
}

func (p *panel) event(d *drawing, at time.Duration, what string) {
	d.rule("one", p.x(at), p.top-8, p.x(at), p.top+panelHeight)
	d.text(p.x(at)+4, p.top-2, "", "start", what)
}

func (p *panel) line(d *drawing, run *course, of func(beat) float64) {
	var points []string
	for i, b := range run.series {
		points = append(points, fmt.Sprintf("%.1f,%.1f", p.x(time.Duration(i)*bucket), p.y(math.Min(of(b), p.most))))
	}
	fmt.Fprintf(d, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", run.variant.colour, strings.Join(points, " "))
}
