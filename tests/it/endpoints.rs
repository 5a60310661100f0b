//! Which addresses a function's calls may go to: Services and EndpointSlices in, a target out.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kubeless::{
    api::{function, function::Function},
    cluster::{
        address::Reach,
        target::{Protocol, Target},
    },
    router::{EndpointChoice, Place, RouterOptions, endpoints},
};
use serde_json::{Value, json};

fn hello() -> Function {
    let object = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "Function", "metadata": {"namespace": "shop", "name": "hello"},
        "spec": {"runtime": "python3.11"},
    });
    function::decode(object).expect("a sound function")
}

fn service(spec: &Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "hello"}, "spec": spec}))
        .expect("a Service")
}

fn slice(ports: &Value, endpoints: &Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "addressType": "IPv4", "metadata": {"namespace": "shop", "name": "hello-1"}, "ports": ports, "endpoints": endpoints,
    }))
    .expect("an EndpointSlice")
}

fn one_port() -> Value {
    json!([{"name": "http-function-port", "port": 8080, "protocol": "TCP"}])
}

fn target(service: Option<&Service>, slices: &[EndpointSlice], options: &RouterOptions) -> Target {
    endpoints::target(&hello(), service, slices.iter(), options)
}

fn addresses(target: &Target) -> Vec<String> {
    target.endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn only_pods_that_are_ready_serving_and_not_leaving_are_called() {
    let conditions = [
        (json!({"ready": true}), true),
        (json!({"ready": true, "serving": true, "terminating": false}), true),
        (json!({}), true),
        (json!({"ready": false}), false),
        (json!({"ready": false, "serving": true, "terminating": true}), false),
        (json!({"ready": true, "serving": true, "terminating": true}), false),
        // A Service that publishes pods before they are ready.
        (json!({"ready": true, "serving": false}), false),
    ];
    for (conditions, called) in conditions {
        let pod = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]);
        let target = target(None, &[slice(&one_port(), &pod)], &RouterOptions::default());
        assert_eq!(!target.endpoints.is_empty(), called, "{conditions}");
    }
}

#[test]
fn slices_are_joined_and_a_pod_counts_once() {
    let first =
        slice(&one_port(), &json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1", "10.9.9.9"]}]));
    let second = slice(&one_port(), &json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}]));
    let dual = slice(&one_port(), &json!([{"addresses": ["fd00::1"]}]));
    let target = target(None, &[first, second, dual], &RouterOptions::default());
    assert_eq!(addresses(&target), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
    assert_eq!(target.near, 3, "all are equally near");
}

#[test]
fn the_port_is_found_by_its_name_and_never_guessed_among_several() {
    let pod = json!([{"addresses": ["10.0.0.1"]}]);
    let port = |name: &str| json!([{"name": "metrics", "port": 9090}, {"name": name, "port": 8181}]);
    let named = service(&json!({"ports": [{"name": "web", "port": 80, "appProtocol": "kubernetes.io/h2c"}]}));
    let options = RouterOptions::default();
    let found = target(Some(&named), &[slice(&port("web"), &pod)], &options);
    assert_eq!(addresses(&found), ["10.0.0.1:8181"]);
    assert_eq!((found.protocol, &*found.authority), (Protocol::H2c, "hello.shop.svc.cluster.local:80"));
    assert!(target(Some(&named), &[slice(&port("other"), &pod)], &options).endpoints.is_empty());
    let only = json!([{"port": 8282}]);
    assert_eq!(addresses(&target(Some(&named), &[slice(&only, &pod)], &options)), ["10.0.0.1:8282"]);
    let datagrams = json!([{"name": "web", "port": 8282, "protocol": "UDP"}]);
    assert!(target(Some(&named), &[slice(&datagrams, &pod)], &options).endpoints.is_empty());
}

#[test]
fn framing_may_stand_in_the_slice() {
    let ports = json!([{"name": "http-function-port", "port": 8080, "appProtocol": "kubernetes.io/h2c"}]);
    let target =
        target(None, &[slice(&ports, &json!([{"addresses": ["10.0.0.1"]}]))], &RouterOptions::default());
    assert_eq!(target.protocol, Protocol::H2c);
}

#[test]
fn a_service_that_is_only_a_name_leads_nowhere() {
    let external = service(
        &json!({"type": "ExternalName", "externalName": "metadata.example", "clusterIP": "10.96.0.9"}),
    );
    let pod = slice(&one_port(), &json!([{"addresses": ["10.0.0.1"]}]));
    for endpoints in [EndpointChoice::Pods, EndpointChoice::Service, EndpointChoice::ServiceUnseen] {
        let options = RouterOptions { endpoints, ..RouterOptions::default() };
        assert!(
            target(Some(&external), std::slice::from_ref(&pod), &options).endpoints.is_empty(),
            "{endpoints:?}"
        );
    }
}

#[test]
fn addresses_that_no_pod_has_are_left_out_before_the_claim() {
    let reach = Reach::pods(["10.7.0.0/16".parse().expect("a network")]);
    let pods = json!([
        {"addresses": ["127.0.0.1"]}, {"addresses": ["169.254.169.254"]}, {"addresses": ["::ffff:127.0.0.1"]},
        {"addresses": ["10.7.1.1"]}, {"addresses": ["not an address"]}, {"addresses": ["10.8.1.1"]},
    ]);
    let options = RouterOptions { reach, ..RouterOptions::default() };
    assert_eq!(addresses(&target(None, &[slice(&one_port(), &pods)], &options)), ["10.8.1.1:8080"]);
    let metadata = service(&json!({"clusterIP": "169.254.169.254", "ports": [{"port": 80}]}));
    let blind = RouterOptions { endpoints: EndpointChoice::ServiceUnseen, ..options };
    assert!(target(Some(&metadata), &[], &blind).endpoints.is_empty());
}

#[test]
fn what_is_nearby_stands_first_by_the_narrowest_rule_that_keeps_something() {
    let hint = |zone: &str| json!({"forZones": [{"name": zone}]});
    let pods = |hints: bool| {
        let pod = |ip: &str, node: &str, zone: &str, hinted: &str| {
            let mut pod = json!({"addresses": [ip], "nodeName": node, "zone": zone});
            if hints {
                pod["hints"] = hint(hinted);
            }
            pod
        };
        json!([
            pod("10.0.0.1", "n1", "a", "b"),
            pod("10.0.0.2", "n2", "b", "b"),
            pod("10.0.0.3", "n3", "c", "a")
        ])
    };
    let near = |node: &str, zone: &str, hints: bool| {
        let place = Place { node: node.to_owned(), zone: zone.to_owned() };
        let options = RouterOptions { place, ..RouterOptions::default() };
        let target = target(None, &[slice(&one_port(), &pods(hints))], &options);
        assert_eq!(target.endpoints.len(), 3, "far ones stay, for the day when the near ones fail");
        addresses(&target)[..target.near]
            .iter()
            .map(|a| a.trim_end_matches(":8080").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(near("n2", "a", false), ["10.0.0.2"], "the node before the zone");
    assert_eq!(near("n9", "a", false), ["10.0.0.1"], "no pod on this node: the zone");
    assert_eq!(near("n9", "a", true), ["10.0.0.3"], "the cluster's hints before the plain zone");
    assert_eq!(near("", "b", true), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(near("", "z", true).len(), 3, "nothing nearby: all alike");
    assert_eq!(near("", "", true).len(), 3);
}

#[test]
fn the_service_address_is_called_where_that_is_asked_for() {
    let hello =
        service(&json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http-function-port", "port": 8080}]}));
    let pod = slice(&one_port(), &json!([{"addresses": ["10.0.0.1"]}]));
    let with = |endpoints| RouterOptions { endpoints, ..RouterOptions::default() };
    let service_way = with(EndpointChoice::Service);
    assert_eq!(addresses(&target(Some(&hello), &[pod], &service_way)), ["10.96.0.9:8080"]);
    assert!(target(Some(&hello), &[], &service_way).endpoints.is_empty(), "no ready pod: nothing is claimed");
    let unseen = with(EndpointChoice::ServiceUnseen);
    assert_eq!(addresses(&target(Some(&hello), &[], &unseen)), ["10.96.0.9:8080"]);
    let headless = service(&json!({"clusterIP": "None", "ports": [{"port": 8080}]}));
    assert!(target(Some(&headless), &[], &unseen).endpoints.is_empty());
    assert!(target(None, &[], &unseen).endpoints.is_empty());
}
