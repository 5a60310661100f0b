//! The autoscaler that a Function carries, from the flags of Kubeless, in the form of today (autoscaling/v2). Must never
//! look at a cluster.

use super::wrong;
use crate::cli::UsageError;
use clap::ValueEnum;
use serde_json::{Value, json};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Metric {
    /// CPU of the Pods, in percent of what they request.
    Cpu,
    /// Calls each second.
    Qps,
}

/// How far, and by what.
#[derive(Clone, Debug, clap::Args)]
pub struct Bounds {
    /// Fewest Pods.
    #[arg(long, default_value_t = 1, value_name = "PODS")]
    min: i32,
    /// Most Pods.
    #[arg(long, default_value_t = 1, value_name = "PODS")]
    max: i32,
    /// What is measured: cpu (needs metrics-server) or qps (needs Prometheus and its adapter).
    #[arg(long, value_enum, default_value = "cpu", hide_possible_values = true)]
    metric: Metric,
    /// What each Pod should have of it: percent of the requested CPU, or calls each second (500m is a half).
    #[arg(long)]
    value: String,
}

impl Bounds {
    /// Refuses what Kubernetes would refuse later.
    pub fn check(&self) -> Result<(), UsageError> {
        if self.min < 1 || self.max < self.min {
            return wrong("--min is at least 1 and --max at least --min");
        }
        match self.metric {
            Metric::Cpu if self.value.parse::<i32>().is_ok_and(|percent| percent > 0) => Ok(()),
            Metric::Cpu => wrong("--value is a whole percentage of the requested CPU, as in 70"),
            Metric::Qps => crate::cli::commands::function::check_quantity("value", &self.value),
        }
    }

    /// As Kubeless wrote it: called like the function, with its labels, for its Deployment.
    pub fn body(&self, function: &Value) -> Value {
        let metadata = &function["metadata"];
        let metric = match self.metric {
            Metric::Cpu => json!({
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": { "type": "Utilization", "averageUtilization": self.value.parse::<i32>().unwrap_or(0) },
                },
            }),
            Metric::Qps => json!({
                "type": "Object",
                "object": {
                    "metric": { "name": "function_calls" },
                    "describedObject": { "apiVersion": "v1", "kind": "Service", "name": metadata["name"] },
                    "target": { "type": "Value", "value": self.value },
                },
            }),
        };
        json!({
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "labels": metadata["labels"],
            },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"] },
                "minReplicas": self.min,
                "maxReplicas": self.max,
                "metrics": [metric],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

    fn bounds(min: i32, max: i32, metric: Metric, value: &str) -> Bounds {
        Bounds { min, max, metric, value: value.to_owned() }
    }

    #[test]
    fn bodies_are_those_of_autoscaling_v2() {
        let function = json!({ "metadata": { "name": "f", "namespace": "n", "labels": { "a": "b" } } });
        for (metric, value) in [(Metric::Cpu, "70"), (Metric::Qps, "100")] {
            let body = bounds(1, 3, metric, value).body(&function);
            let typed: HorizontalPodAutoscaler = serde_json::from_value(body.clone()).unwrap();
            assert_eq!(serde_json::to_value(&typed.spec).unwrap(), body["spec"]);
            assert_eq!(body["metadata"]["labels"], json!({ "a": "b" }));
        }
    }

    #[test]
    fn bounds_that_cannot_be_are_refused() {
        assert!(bounds(1, 3, Metric::Cpu, "70").check().is_ok());
        assert!(bounds(1, 3, Metric::Qps, "500m").check().is_ok());
        for wrong in [
            bounds(0, 3, Metric::Cpu, "70"),
            bounds(3, 2, Metric::Cpu, "70"),
            bounds(1, 3, Metric::Cpu, "70%"),
            bounds(1, 3, Metric::Qps, "many"),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
