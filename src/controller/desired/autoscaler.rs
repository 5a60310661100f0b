//! A function's HorizontalPodAutoscaler: what users wrote or Kubeless stored (v1, v2beta1, v2beta2), brought to
//! autoscaling/v2, and the ServiceMonitor that calls-per-second scaling reads. Must never scale anything but the
//! function's own Deployment.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
};
use serde_json::{Map, Value, json};

use super::{FUNCTION_LABEL, Kind, Object, labels, metadata};
use crate::api::{
    Violation,
    function::{DEFAULT_PORT_NAME, Function},
};

const AT: &str = "/spec/horizontalPodAutoscaler";

/// The autoscaler; `None` when the function has none (or the empty one that Kubeless stored).
///
/// # Errors
/// One violation that names what cannot be brought to autoscaling/v2.
pub fn autoscaler(function: &Function) -> Result<Option<HorizontalPodAutoscaler>, Violation> {
    let Some(body) = &function.spec.horizontal_pod_autoscaler else {
        return Ok(None);
    };
    let name = body.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str);
    let name = name.unwrap_or_default().to_owned();
    let spec = body.get("spec").and_then(Value::as_object);
    let target = spec.and_then(|spec| spec.get("scaleTargetRef")).and_then(|target| target.get("name"));
    let target = target.and_then(Value::as_str).unwrap_or_default();
    let Some(spec) = spec.filter(|_| !name.is_empty() && !target.is_empty()) else {
        return Ok(None);
    };
    let mut spec = to_v2(spec)?;
    let own = function.metadata.name.clone().unwrap_or_default();
    if target != own {
        let what = format!("scales {target:?}, which is not this function's Deployment");
        return Err(Violation::new(format!("{AT}/spec/scaleTargetRef/name"), what, format!("write {own}")));
    }
    spec.scale_target_ref = CrossVersionObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: "Deployment".to_owned(),
        name: own,
    };
    let mut meta = metadata(&function.metadata);
    meta.name = Some(name);
    Ok(Some(HorizontalPodAutoscaler { metadata: meta, spec: Some(spec), status: None }))
}

/// What is missing in an autoscaler that asks for something and yet is none, as in Kubeless.
pub fn ignored(function: &Function) -> Option<Violation> {
    let body = Value::Object(function.spec.horizontal_pod_autoscaler.clone()?);
    let asks = body.pointer("/spec/maxReplicas").and_then(Value::as_i64) > Some(0);
    let said = |path: &&str| body.pointer(path).and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let missing = ["/metadata/name", "/spec/scaleTargetRef/name"].into_iter().find(|path| !said(path));
    let path = missing.filter(|_| asks)?;
    let own = function.metadata.name.as_deref().unwrap_or_default();
    Some(Violation::new(format!("{AT}{path}"), "missing, so that nothing is scaled", format!("write {own}")))
}

fn to_v2(spec: &Map<String, Value>) -> Result<HorizontalPodAutoscalerSpec, Violation> {
    let mut spec = spec.clone();
    let mut metrics = match spec.remove("metrics") {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").and_then(|value| value.as_i64()) {
        metrics.push(
            json!({"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": percent}}),
        );
    }
    let metrics: Vec<Value> = metrics.into_iter().map(metric_to_v2).collect();
    spec.insert("metrics".to_owned(), Value::Array(metrics));
    let typed: HorizontalPodAutoscalerSpec =
        serde_json::from_value(Value::Object(spec)).map_err(|error| {
            Violation::new(
                format!("{AT}/spec"),
                error.to_string(),
                "write an autoscaling/v2 HorizontalPodAutoscaler",
            )
        })?;
    if typed.max_replicas < 1 || typed.min_replicas.is_some_and(|least| least > typed.max_replicas) {
        let what = format!("maxReplicas {} is below minReplicas or 1", typed.max_replicas);
        return Err(Violation::new(format!("{AT}/spec/maxReplicas"), what, "raise maxReplicas"));
    }
    Ok(typed)
}

/// One metric; what already is v2 stays as it is.
fn metric_to_v2(mut metric: Value) -> Value {
    for source in ["resource", "pods", "object", "external", "containerResource"] {
        if let Some(body) = metric.get_mut(source).and_then(Value::as_object_mut) {
            // v2beta1 called the object `target`; in v2 that is the number.
            let beta1 =
                source != "object" || body.get("target").is_some_and(|target| target.get("name").is_some());
            if beta1 && body.get("target").is_none_or(|target| target.get("type").is_none()) {
                *body = source_to_v2(source, std::mem::take(body));
            }
        }
    }
    metric
}

fn source_to_v2(source: &str, mut old: Map<String, Value>) -> Map<String, Value> {
    let mut new = Map::new();
    let mut target = Map::new();
    let mut take = |from: &str| old.remove(from).filter(|value| !value.is_null() && *value != json!(""));
    if let Some(object) = take("target") {
        new.insert("describedObject".to_owned(), object);
    }
    let mut amount = |kind: &str, field: &str, value: Value| {
        target.insert("type".to_owned(), kind.into());
        target.insert(field.to_owned(), value);
    };
    for from in ["targetValue", "value"] {
        if let Some(value) = take(from).map(quantity).filter(|value| *value != json!("0")) {
            amount("Value", "value", value);
        }
    }
    for from in ["targetAverageValue", "averageValue"] {
        if let Some(value) = take(from).map(quantity).filter(|value| *value != json!("0")) {
            amount("AverageValue", "averageValue", value);
        }
    }
    if let Some(percent) = take("targetAverageUtilization") {
        amount("Utilization", "averageUtilization", percent);
    }
    let mut metric = Map::new();
    if let Some(name) = take("metricName") {
        metric.insert("name".to_owned(), name);
    }
    for from in ["metricSelector", "selector"] {
        if let Some(selector) = take(from) {
            metric.insert("selector".to_owned(), selector);
        }
    }
    if matches!(source, "resource" | "containerResource") {
        new.append(&mut old);
    } else {
        new.insert("metric".to_owned(), Value::Object(metric));
    }
    new.insert("target".to_owned(), Value::Object(target));
    new
}

/// A quantity is text; JSON written by hand may hold a number.
fn quantity(value: Value) -> Value {
    match value {
        Value::Number(number) => number.to_string().into(),
        other => other,
    }
}

/// What Prometheus needs to know to scrape a function that is scaled by its calls; `None` for other autoscalers.
pub fn service_monitor(function: &Function, autoscaler: &HorizontalPodAutoscaler) -> Option<Object> {
    let metrics = autoscaler.spec.as_ref()?.metrics.as_ref()?;
    if metrics.first()?.type_ != "Object" {
        return None;
    }
    let mut meta = metadata(&function.metadata);
    let mut all = labels(&function.metadata);
    all.insert("service-monitor".to_owned(), "function".to_owned());
    meta.labels = Some(all);
    let port = function.service_port().name.unwrap_or_else(|| DEFAULT_PORT_NAME.to_owned());
    let body = json!({
        "metadata": meta,
        "spec": {
            "selector": { "matchLabels": { FUNCTION_LABEL: function.metadata.name } },
            "endpoints": [{ "port": port }],
        },
    });
    Object::new(Kind::ServiceMonitor, &body).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    use super::*;

    fn function(body: Value) -> Function {
        let mut function = Function::new("f", Default::default());
        function.metadata.namespace = Some("n".to_owned());
        function.spec.horizontal_pod_autoscaler = body.as_object().cloned();
        function
    }

    fn stored(metric: Value) -> Value {
        json!({"metadata": {"name": "f", "creationTimestamp": null}, "status": {"currentReplicas": 0}, "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "f", "apiVersion": "apps/v1beta1"},
            "minReplicas": 1, "maxReplicas": 3, "metrics": [metric]}})
    }

    fn spec(body: Value) -> Value {
        let scaler = autoscaler(&function(body)).unwrap().expect("an autoscaler");
        serde_json::to_value(scaler.spec.unwrap()).unwrap()
    }

    #[test]
    fn what_kubeless_stored_for_cpu_and_calls_is_v2() {
        let cpu = spec(stored(
            json!({"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 67}}),
        ));
        assert_eq!(
            cpu["scaleTargetRef"],
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "f"})
        );
        let target = json!({"type": "Utilization", "averageUtilization": 67});
        assert_eq!(
            cpu["metrics"][0],
            json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
        );
        let calls =
            stored(json!({"type": "Object", "object": {"metricName": "function_calls", "targetValue": "100",
            "target": {"kind": "Service", "name": "f"}}}));
        let wanted = json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "f"},
            "metric": {"name": "function_calls"}, "target": {"type": "Value", "value": "100"}}});
        assert_eq!(spec(calls.clone())["metrics"][0], wanted);
        let owner = function(calls);
        let monitor =
            service_monitor(&owner, &autoscaler(&owner).unwrap().unwrap()).expect("scaled by calls");
        assert_eq!(monitor.value["spec"]["endpoints"][0]["port"], "http-function-port");
        assert_eq!(monitor.value["spec"]["selector"]["matchLabels"], json!({"function": "f"}));
    }

    #[test]
    fn v2_stays_and_v1_and_others_are_brought_to_it() {
        let metric = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        assert_eq!(spec(stored(metric.clone()))["metrics"][0], metric);
        let object = json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "f"},
            "metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}});
        assert_eq!(spec(stored(object.clone()))["metrics"][0], object);
        let pods = stored(json!({"type": "Pods", "pods": {"metricName": "m", "targetAverageValue": 5}}));
        assert_eq!(spec(pods)["metrics"][0], metric);
        let v1 = json!({"metadata": {"name": "f"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "f"},
            "maxReplicas": 2, "targetCPUUtilizationPercentage": 50}});
        assert_eq!(spec(v1)["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    }

    #[test]
    fn the_empty_one_is_none_and_a_foreign_target_is_refused() {
        let empty = json!({"metadata": {"creationTimestamp": null}, "status": {},
            "spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0}});
        assert_eq!(autoscaler(&function(empty.clone())).unwrap(), None);
        assert_eq!(ignored(&function(empty)), None);
        let mut foreign = stored(json!({}));
        foreign["spec"]["scaleTargetRef"]["name"] = "database".into();
        let violation = autoscaler(&function(foreign)).unwrap_err();
        assert!(violation.path.ends_with("/scaleTargetRef/name"), "{violation}");
        let mut none = stored(json!({}));
        none["spec"]["maxReplicas"] = 0.into();
        none["spec"]["metrics"] = json!([]);
        assert!(autoscaler(&function(none)).is_err());
    }

    #[test]
    fn one_that_is_none_for_want_of_a_name_is_told() {
        for path in ["/metadata/name", "/spec/scaleTargetRef/name"] {
            let mut nameless = stored(json!({}));
            assert_eq!(ignored(&function(nameless.clone())), None);
            *nameless.pointer_mut(path).unwrap() = Value::Null;
            assert_eq!(autoscaler(&function(nameless.clone())).unwrap(), None, "as in Kubeless");
            let told = ignored(&function(nameless)).expect("a violation");
            assert_eq!((told.path, told.fix), (format!("{AT}{path}"), "write f".to_owned()));
        }
    }
}
