//! Route look-up and one object's change with 10,000 triggers and as many functions.

use criterion::{Criterion, criterion_group, criterion_main};
use kubeless::{
    api,
    cluster::{
        index::Index as _,
        target::{ObjectRef, TriggerRef},
    },
    router::{Router, RouterOptions, table::SubscriptionKey},
    sources::KINDS,
};
use serde_json::json;
use std::hint::black_box;

const TRIGGERS: usize = 10_000;

fn object(
    kind: &str,
    name: &str,
    extra: (&str, &serde_json::Value),
    spec: &serde_json::Value,
) -> serde_json::Value {
    json!({
        "apiVersion": api::API_VERSION, "kind": kind,
        "metadata": {"namespace": "shop", "name": name, extra.0: extra.1}, "spec": spec
    })
}

fn function(n: usize, revision: usize) -> api::function::Function {
    let labels = json!({"app": format!("a{n}"), "revision": format!("r{revision}")});
    api::function::decode(object("Function", &format!("f{n}"), ("labels", &labels), &json!({})))
        .unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn trigger(n: usize) -> std::sync::Arc<api::trigger::TriggerCore> {
    let spec = json!({"topic": "orders", "functionSelector": {"matchLabels": {"app": format!("a{n}")}}});
    let decoded = (KINDS[0].trigger().decode)(object(
        KINDS[0].trigger().kind,
        &format!("t{n}"),
        ("uid", &json!(format!("u{n}"))),
        &spec,
    ));
    decoded.unwrap_or_else(|faults| panic!("{faults:?}")).core
}

fn router(criterion: &mut Criterion) {
    let (mut index, router) = Router::new(RouterOptions::default());
    index.reset((0..TRIGGERS).map(trigger).collect());
    index.reset((0..TRIGGERS).map(|n| function(n, 0)).collect());
    assert_eq!(router.load().iter().count(), TRIGGERS);
    let keys: Vec<SubscriptionKey> = (0..TRIGGERS)
        .map(|n| SubscriptionKey {
            trigger: TriggerRef::new(KINDS[0].trigger().kind, ObjectRef::new("shop", format!("t{n}"))),
            function: ObjectRef::new("shop", format!("f{n}")),
        })
        .collect();
    let mut turn = 0;
    criterion.bench_function("router/route of 10,000, the same again", |bencher| {
        bencher.iter(|| black_box(router.route(black_box(&keys[42]))));
    });
    criterion.bench_function("router/route of 10,000, in turn through one guard", |bencher| {
        let table = router.load();
        bencher.iter(|| {
            turn = (turn + 1) % TRIGGERS;
            black_box(table.route(black_box(&keys[turn])).is_some())
        });
    });
    criterion.bench_function("router/route of 10,000", |bencher| {
        bencher.iter(|| {
            turn = (turn + 7919) % TRIGGERS;
            black_box(router.route(black_box(&keys[turn])))
        });
    });
    let edits = [function(0, 1), function(0, 2)];
    criterion.bench_function("router/relabel one function of 10,000", |bencher| {
        bencher.iter(|| {
            turn += 1;
            index.apply(edits[turn % 2].clone());
        });
    });
}

criterion_group!(benches, router);
criterion_main!(benches);
