//! Free ports for servers that must keep their port over a restart. Must never hand out a port of the ephemeral
//! range: while a server is down, some client's own end could get its port, or connect to itself.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    sync::{LazyLock, Mutex},
};

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// An address of this machine that is not the loopback. Nothing is sent to find it.
pub fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect(("192.0.2.1", 9)).expect("this machine has a route to somewhere");
    match socket.local_addr().expect("it is bound").ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("an IPv4 socket"),
    }
}

/// A port below the ephemeral range that nothing listens on, never given twice by this process.
pub fn free_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32768_u16);
    assert!(low > 12_000, "no room below the ephemeral port range, which starts at {low}");
    let mut given = GIVEN.lock().expect("no panic while holding it");
    for _ in 0..1000 {
        let port = fastrand::u16(10_000..low);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port between 10000 and {low}");
}
