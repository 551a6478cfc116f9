package audit_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/doorbuster/doorbuster/engine/audit"
)

func TestMeterRemembersABrokenLaw(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	reg := prometheus.NewRegistry()
	m, err := audit.NewMeter(reg, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	look := func(two, seven audit.Finding) {
		m.Observe(&audit.Report{Sale: "drop", Laws: []audit.Law{{Number: 2, Holds: two}, {Number: 7, Holds: seven}}})
	}
	look(audit.Holds, audit.Unchecked)
	want := func(step string, values map[string]float64) {
		t.Helper()
		got := gather(t, reg)
		if len(got) != len(values) {
			t.Errorf("%s: %v, want %v", step, got, values)
		}
		for k, v := range values {
			if got[k] != v {
				t.Errorf("%s: %s is %v, want %v", step, k, got[k], v)
			}
		}
	}
	want("held", map[string]float64{"doorbuster_audit_law_broken 2": 0, "doorbuster_audit_look_age_seconds": 0})
	look(audit.Broken, audit.Holds)
	look(audit.Holds, audit.Unchecked)
	now = now.Add(5 * time.Second)
	want("was broken once", map[string]float64{
		"doorbuster_audit_law_broken 2": 1, "doorbuster_audit_law_broken 7": 0, "doorbuster_audit_look_age_seconds": 5,
	})
	if _, err := audit.NewMeter(reg, nil); err == nil {
		t.Error("registered twice: no error")
	}
}

// gather reads every gauge, named with its law.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			out[f.GetName()+law(one)] = one.GetGauge().GetValue()
		}
	}
	return out
}

func law(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "law" {
			return " " + l.GetValue()
		}
	}
	return ""
}
