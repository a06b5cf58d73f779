package agent

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
)

const (
	maxPolicies    = 256
	maxDescription = 200
)

func (x *exporter) getPolicy(r *http.Request) (int, any, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.policies[r.PathValue("policy")]
	if p == nil {
		return 0, nil, notFound("there is no policy %s", r.PathValue("policy"))
	}
	return http.StatusOK, p, nil
}

func (x *exporter) putPolicy(r *http.Request) (int, any, error) {
	var in Policy
	if err := body(r, &in); err != nil {
		return 0, nil, err
	}
	in.Name = r.PathValue("policy")
	if err := checkName("policy", in.Name); err != nil {
		return 0, nil, err
	}
	if len(in.Rules) > 0 {
		return 0, nil, badRequest("policy %s: rules are put one by one", in.Name)
	}
	if len(in.Description) > maxDescription {
		return 0, nil, badRequest("policy %s: the description is longer than %d bytes", in.Name, maxDescription)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	policies, p := x.copied(in.Name)
	if len(policies) > maxPolicies {
		return 0, nil, conflict("there are %d policies already", maxPolicies)
	}
	p.Name, p.Description = in.Name, in.Description
	if err := x.commit(r.Context(), x.volumes, policies); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, p, nil
}

func (x *exporter) deletePolicy(r *http.Request) (int, any, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := r.PathValue("policy")
	if x.policies[name] == nil {
		return 0, nil, notFound("there is no policy %s", name)
	}
	var users []string
	for _, v := range sortedKeys(x.volumes) {
		if x.volumes[v].Policy == name {
			users = append(users, v)
		}
	}
	if len(users) > 0 {
		return 0, nil, conflict("policy %s is that of %s", name, strings.Join(users, ", "))
	}
	policies := maps.Clone(x.policies)
	delete(policies, name)
	return 0, nil, x.commit(r.Context(), x.volumes, policies)
}

// copied is the policies with one of them free to be changed.
func (x *exporter) copied(name string) (map[string]*Policy, *Policy) {
	all := maps.Clone(x.policies)
	p := &Policy{}
	if old := x.policies[name]; old != nil {
		*p = *old
	}
	if p.Rules = maps.Clone(p.Rules); p.Rules == nil {
		p.Rules = map[string]*Rule{}
	}
	all[name] = p
	return all, p
}

// index reads the number of a rule in a path.
func index(r *http.Request) (int, error) {
	i, err := strconv.Atoi(r.PathValue("index"))
	if err != nil || i < 1 || i > maxIndex || strconv.Itoa(i) != r.PathValue("index") {
		return 0, badRequest("the index of a rule is a number from 1 to %d", maxIndex)
	}
	return i, nil
}

func (x *exporter) getRule(r *http.Request) (int, any, error) {
	i, err := index(r)
	if err != nil {
		return 0, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.policies[r.PathValue("policy")]; p != nil && p.Rules[ruleKey(i)] != nil {
		return http.StatusOK, p.Rules[ruleKey(i)], nil
	}
	return 0, nil, notFound("policy %s has no rule %d", r.PathValue("policy"), i)
}

func (x *exporter) putRule(r *http.Request) (int, any, error) {
	i, err := index(r)
	if err != nil {
		return 0, nil, err
	}
	var in Rule
	if err := body(r, &in); err != nil {
		return 0, nil, err
	}
	in.Index = i
	if err := in.check(x.conf.PrefixIPv4, x.conf.PrefixIPv6); err != nil {
		return 0, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	name := r.PathValue("policy")
	if x.policies[name] == nil {
		return 0, nil, notFound("there is no policy %s", name)
	}
	policies, p := x.copied(name)
	p.Rules[ruleKey(i)] = &in
	if len(p.Rules) > maxRules {
		return 0, nil, conflict("policy %s has %d rules already", name, maxRules)
	}
	if err := x.commit(r.Context(), x.volumes, policies); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, &in, nil
}

func (x *exporter) deleteRule(r *http.Request) (int, any, error) {
	i, err := index(r)
	if err != nil {
		return 0, nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	name := r.PathValue("policy")
	if x.policies[name] == nil || x.policies[name].Rules[ruleKey(i)] == nil {
		return 0, nil, notFound("policy %s has no rule %d", name, i)
	}
	policies, p := x.copied(name)
	delete(p.Rules, ruleKey(i))
	return 0, nil, x.commit(r.Context(), x.volumes, policies)
}
