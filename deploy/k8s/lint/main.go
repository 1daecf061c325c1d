// Command lint decodes a file of Kubernetes Jobs with the types of Kubernetes' API. It fails if the file has an unknown
// field or a field of the wrong type, or some other mistake that the API server would refuse. It needs no cluster.
//
//	cd deploy/k8s/lint && go run . ../embed.yaml
//
// The command is a module of its own, so that embed does not depend on Kubernetes' packages.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	for _, path := range os.Args[1:] {
		content, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		for _, document := range bytes.Split(content, []byte("\n---\n")) {
			var job batch.Job
			err := yaml.UnmarshalStrict(document, &job)
			if err == nil {
				err = check(&job)
			}
			if err != nil {
				log.Fatalf("%s: %s: %v", path, job.Name, err)
			}
			fmt.Printf("%s: %s %s is valid\n", path, job.Kind, job.Name)
		}
	}
}

// check returns an error for some of the mistakes that the API server refuses.
func check(job *batch.Job) error {
	if job.APIVersion != "batch/v1" || job.Kind != "Job" || job.Name == "" {
		return fmt.Errorf("not a Job of batch/v1 with a name: %s %s", job.APIVersion, job.Kind)
	}
	spec := job.Spec
	if spec.CompletionMode != nil && *spec.CompletionMode == batch.IndexedCompletion && spec.Completions == nil {
		return fmt.Errorf("an Indexed Job needs completions")
	}
	pod := spec.Template.Spec
	containers := map[string]bool{}
	for _, c := range pod.Containers {
		containers[c.Name] = true
	}
	if pod.RestartPolicy != core.RestartPolicyNever && (pod.RestartPolicy != core.RestartPolicyOnFailure || spec.PodFailurePolicy != nil) {
		return fmt.Errorf("restartPolicy %q", pod.RestartPolicy)
	}
	if spec.PodFailurePolicy == nil {
		return nil
	}
	for _, rule := range spec.PodFailurePolicy.Rules {
		if rule.Action == batch.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
			return fmt.Errorf("FailIndex needs backoffLimitPerIndex")
		}
		codes := rule.OnExitCodes
		if (codes == nil) == (len(rule.OnPodConditions) == 0) {
			return fmt.Errorf("a rule has either exit codes or conditions")
		}
		if codes != nil && (codes.ContainerName == nil || !containers[*codes.ContainerName] || len(codes.Values) == 0) {
			return fmt.Errorf("exit codes of a container that does not exist, or none")
		}
	}
	return nil
}
