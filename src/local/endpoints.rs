//! Tells the dispatcher where functions listen, in the objects a cluster would use: one file with a Service and an
//! EndpointSlice for each function. Must never leave a half-written file.

use super::{
    layout::write_whole,
    plan::{FunctionPlan, Name},
};
use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::PathBuf};

/// The ready addresses of every function, by version: the newest ready version receives the calls.
#[derive(Debug)]
pub struct Endpoints {
    folder: PathBuf,
    ready: BTreeMap<Name, BTreeMap<u64, SocketAddr>>,
}

impl Endpoints {
    /// Starts with an empty folder: addresses of an earlier session are worth nothing.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        for entry in fs::read_dir(&folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { folder, ready: BTreeMap::new() })
    }

    /// A version became ready (`Some`) or stopped being so (`None`). Writes the file if the answer changed.
    pub fn set(
        &mut self,
        function: &FunctionPlan,
        version: u64,
        address: Option<SocketAddr>,
    ) -> io::Result<()> {
        let versions = self.ready.entry(function.name.clone()).or_default();
        let before = versions.last_key_value().map(|(_, address)| *address);
        match address {
            Some(address) => versions.insert(version, address),
            None => versions.remove(&version),
        };
        let now = versions.last_key_value().map(|(_, address)| *address);
        let path = self.path(&function.name);
        if before == now && path.exists() {
            return Ok(());
        }
        write_whole(&path, manifest(function, now).as_bytes())
    }

    /// A version will not be used again; the file already names a newer one.
    pub fn forget(&mut self, name: &Name, version: u64) {
        if let Some(versions) = self.ready.get_mut(name) {
            versions.remove(&version);
        }
    }

    /// The function is gone.
    pub fn remove(&mut self, name: &Name) -> io::Result<()> {
        self.ready.remove(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("{}.{}.yaml", name.namespace, name.name))
    }
}

/// Names are DNS labels (checked when the manifest was read), so they need no quoting.
fn manifest(function: &FunctionPlan, ready: Option<SocketAddr>) -> String {
    let (Name { namespace, name }, port) = (&function.name, function.port);
    let endpoints = match ready {
        None => "endpoints: []\n".to_owned(),
        Some(address) => {
            format!("endpoints:\n- addresses: [\"{}\"]\n  conditions: {{ready: true}}\n", address.ip())
        }
    };
    let target = ready.map_or(port, |address| address.port());
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  ports:\n  \
         - {{name: http-function-port, port: {port}, targetPort: {target}, protocol: TCP}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-local\n  \
         namespace: {namespace}\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports:\n\
         - {{name: http-function-port, port: {target}, protocol: TCP}}\n{endpoints}"
    )
}
