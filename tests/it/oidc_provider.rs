//! Sign-in by an account elsewhere against the real `oidc-provider`, through the whole gateway and a
//! real browser.

use crate::{
    browser::{click, press, shows},
    support::{
        browser::Driver,
        house::{House, link_in},
        oidc_provider::OidcProvider,
        pki::Pki,
        smtp,
    },
};
use fantoccini::{Client, Locator};
use std::{path::Path, time::Duration};

const MESSAGE: &[u8] = b"Subject: Your appointment\r\n\r\nPlease come on Monday.\r\n";
const ADA: &str = "ada@stranger.test";

/// A message for Ada, who has no account yet, and a provider that knows her.
struct Visit {
    house: House,
    provider: OidcProvider,
    browser: Client,
    link: String,
}

fn visit(mode: &str, journey: impl AsyncFnOnce(&Visit)) {
    let dir = tempfile::tempdir().expect("temp dir");
    let (house, provider) = scene(dir.path(), mode);
    smtp::send(house.gateway.smtp, "doctor@example.org", &[ADA], MESSAGE);
    let link = link_in(&house.mail_to_stranger(1).content);
    let link = format!("http://{}{link}", house.gateway.portal);
    let downloads = dir.path().join("downloads");
    std::fs::create_dir_all(&downloads).expect("folder");
    let driver = Driver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let browser = driver.browser(false, &downloads).await;
        let visit = Visit { house, provider, browser, link };
        journey(&visit).await;
        visit.browser.close().await.expect("closed");
    });
}

fn scene(dir: &Path, mode: &str) -> (House, OidcProvider) {
    std::fs::create_dir_all(dir.join("op")).expect("folder");
    let mut provider = None;
    let house = House::open(dir, &[], |settings| {
        let anchors = settings.anchors.clone().expect("anchors");
        let pki = Pki::new(&dir.join("op"));
        // The house's own authority, and the provider's.
        let both =
            [anchors.clone(), pki.anchors.clone()].map(|file| std::fs::read(file).expect("PEM"));
        std::fs::write(&anchors, both.concat()).expect("written");
        let started = OidcProvider::start(mode, &pki.leaf("127.0.0.1"), ADA);
        settings.portal = started.configuration("Real ID", dir);
        provider = Some(started);
    });
    (house, provider.expect("a provider"))
}

impl Visit {
    /// From the page in view to the provider.
    async fn set_out(&self) {
        shows(&self.browser, "Sign in with Real ID").await;
        click(&self.browser, "form[action='/login/oidc'] button").await;
    }
    /// Through the pages that `oidc-provider` brings along.
    async fn sign_in_there(&self) {
        self.comes("input[name=prompt][value=login]").await;
        for (field, words) in [("login", "ada"), ("password", "anything")] {
            let field = format!("input[name={field}]");
            let field = self.browser.find(Locator::Css(&field)).await.expect("a field");
            field.send_keys(words).await.expect("typed");
        }
        press(&self.browser, "button[type=submit]").await;
    }
    async fn consent(&self) {
        self.comes("input[name=prompt][value=consent]").await;
        press(&self.browser, "button[type=submit]").await;
    }
    async fn comes(&self, css: &str) {
        let wait = self.browser.wait().at_most(Duration::from_secs(60));
        wait.for_element(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }
    async fn sign_out(&self) {
        click(&self.browser, "form[action='/logout'] button").await;
    }
}

#[test]
fn oidc_provider_as_it_comes_tells_the_address_at_userinfo() {
    visit("plain", async |visit| {
        visit.browser.goto(&visit.link).await.expect("the link");
        visit.set_out().await;
        visit.sign_in_there().await;
        visit.consent().await;
        shows(&visit.browser, "Please come on Monday").await;
        assert_eq!(visit.provider.asked("/me"), 1);
        visit.sign_out().await;
        // It refuses `select_account`, and remembers her: the next one is asked who it is.
        visit.set_out().await;
        visit.sign_in_there().await;
        visit.consent().await;
        shows(&visit.browser, "Your appointment").await;
        let accounts = visit.house.gateway.json(&["account", "list"]);
        assert_eq!(accounts[0]["name"], "Ada Reader");
        assert_eq!(accounts[0]["address"], ADA);
    });
}

#[test]
fn oidc_provider_puts_the_address_into_the_token_where_claims_may_be_asked_for() {
    visit("claims", async |visit| {
        visit.browser.goto(&visit.link).await.expect("the link");
        visit.set_out().await;
        visit.sign_in_there().await;
        visit.consent().await;
        shows(&visit.browser, "Please come on Monday").await;
        assert_eq!(visit.provider.asked("/token"), 1);
        assert_eq!(visit.provider.asked("/me"), 0, "the token has it");
    });
}

#[test]
fn oidc_provider_lets_the_account_be_chosen_each_time() {
    visit("choosing", async |visit| {
        visit.browser.goto(&visit.link).await.expect("the link");
        visit.set_out().await;
        let answer = async |asked: &str| {
            shows(&visit.browser, &format!("Provider asks: {asked}")).await;
            press(&visit.browser, "button").await;
        };
        // It asks native clients for consent each time.
        for asked in ["select_account", "login", "consent"] {
            answer(asked).await;
        }
        shows(&visit.browser, "Please come on Monday").await;
        visit.sign_out().await;
        visit.set_out().await;
        for asked in ["select_account", "consent"] {
            answer(asked).await;
        }
        shows(&visit.browser, "Your appointment").await;
    });
}

#[test]
fn userinfo_of_another_person_signs_nobody_in() {
    visit("swapped", async |visit| {
        visit.browser.goto(&visit.link).await.expect("the link");
        visit.set_out().await;
        visit.sign_in_there().await;
        visit.consent().await;
        shows(&visit.browser, "is not enough to sign in here").await;
        assert_eq!(visit.provider.asked("/me"), 1);
        assert!(visit.house.gateway.log_text().contains("of another person than the token (sub)"));
        assert_eq!(visit.house.gateway.json(&["account", "list"]), serde_json::json!([]));
    });
}
