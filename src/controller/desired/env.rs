//! Environment variables. Must never give a container two of one name: the API server refuses that, and Kubeless's order
//! (user, function, runtime; the last wins) decides which one stays.

use k8s_openapi::api::core::v1::EnvVar;
use std::collections::BTreeMap;

use super::{init::INSTALL_VOLUME, literal, runtime::Chosen};
use crate::api::{
    code::Handler,
    function::{DEFAULT_TIMEOUT, Function},
    runtimes::Phase,
};

/// A variable with a value.
pub fn var(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// Sets a variable; one of the same name goes.
pub fn set(env: &mut Vec<EnvVar>, variable: EnvVar) {
    env.retain(|old| old.name != variable.name);
    env.push(variable);
}

/// Sets all of them.
pub fn set_all(env: &mut Vec<EnvVar>, variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        set(env, var(name, value.as_str()));
    }
}

/// Adds what a function's container is told, after the user's own variables.
pub fn of_function(
    env: &mut Vec<EnvVar>,
    function: &Function,
    runtime: Option<Chosen<'_>>,
    memory_limit: Option<&str>,
    port: u16,
) {
    let spec = &function.spec;
    if let Some(Handler { module, function: name }) = function.handler().filter(|_| !spec.function.is_empty())
    {
        let timeout = function.timeout().unwrap_or(DEFAULT_TIMEOUT).as_secs();
        set(env, var("FUNC_HANDLER", literal(name)));
        set(env, var("MOD_NAME", literal(module)));
        set(env, var("FUNC_TIMEOUT", timeout.to_string()));
        set(env, var("FUNC_RUNTIME", literal(&spec.runtime)));
        set(env, var("FUNC_MEMORY_LIMIT", memory_limit.unwrap_or("0")));
    }
    set(env, var("FUNC_PORT", port.to_string()));
    if let Some(runtime) = runtime {
        set(env, var("KUBELESS_INSTALL_VOLUME", INSTALL_VOLUME));
        if let Some(run) = runtime.image(Phase::Runtime) {
            set_all(env, &run.env);
        }
    }
}
