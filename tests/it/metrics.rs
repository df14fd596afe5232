//! The metrics listener, as Prometheus and a load balancer see it.

use super::support::{
    free_port,
    house::{House, PARTNER_FILE},
    http::Visitor,
    wait_for,
};
use std::fs;

#[test]
fn numbers_follow_what_happens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let address = format!("127.0.0.1:{}", free_port(&["127.0.0.1"]));
    let house = House::open(dir.path(), &[PARTNER_FILE], |settings| {
        settings.watch = "6h";
        settings.notification = format!("[metrics]\nlisten = \"{address}\"");
    });
    let status = house.gateway.json(&["status"]);
    assert_eq!(status["listeners"]["metrics"][0], address.as_str());
    let mut prometheus = Visitor::new(address.parse().expect("address"));
    for (path, code) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404)] {
        assert_eq!(prometheus.get(path).status, code, "{path}");
    }
    let mut wait_for_line = |line: &str| {
        wait_for(line, || {
            let page = prometheus.get("/metrics");
            page.text().lines().any(|l| l == line).then_some(())
        });
    };
    wait_for_line("restante_dnssec_working 0");
    wait_for_line("restante_policy_reload_error 0");
    // Nobody listens at the partner's address.
    wait_for_line("restante_watch_warnings{kind=\"unreachable\"} 1");
    fs::write(house.gateway.dir.join("policies/broken.toml"), "[[partner]]\n").expect("written");
    wait_for_line("restante_policy_reload_error 1");
}
