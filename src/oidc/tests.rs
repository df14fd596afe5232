//! With a provider that lies.

use super::{cache::REST, testing::*, *};
use jiff::SignedDuration;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}
fn flow() -> LoginFlow {
    LoginFlow {
        state: "state".to_owned(),
        nonce: "nonce".to_owned(),
        verifier: Zeroizing::new("v".repeat(43)),
        redirect: "https://portal.example/login/oidc/callback".to_owned(),
        prompt: Prompt::SelectAccount,
    }
}
/// A whole sign-in there.
async fn sign_in(op: &Op, provider: &Provider, now: Timestamp) -> Result<Person, OidcError> {
    let flow = flow();
    let url = provider.leading(&flow, now).await?;
    let (code, state) = op.signs_in(&url);
    assert_eq!(state, flow.state);
    provider.person(&code, &flow, now).await
}

#[tokio::test]
async fn a_token_of_each_kind_names_the_mailbox() {
    let op = Op::new(now());
    let provider = op.provider(&[]);
    let ann = Person {
        address: "ann@clinic.example".parse().unwrap(),
        first_name: "Ann".to_owned(),
        last_name: "Ode".to_owned(),
    };
    for signer in [Signer::Rsa, Signer::P256, Signer::Ed25519] {
        op.says(signer, |_, _| {});
        assert_eq!(sign_in(&op, &provider, now()).await.as_ref(), Ok(&ann), "{signer:?}");
    }
    let asked = op.asked();
    let times = |place: &str| asked.iter().filter(|asked| asked.ends_with(place)).count();
    assert_eq!((times("openid-configuration"), times("/keys"), times("/token")), (1, 1, 3));
    op.set_metadata("token_endpoint_auth_methods_supported", Value::Null);
    op.set_metadata("token_endpoint_auth_methods_supported", json!([]));
    assert!(sign_in(&op, &op.provider(&[]), now()).await.is_ok(), "by the Authorization field");
}

/// A token that is not right in one thing: who signs it, what is changed, and what is said of it.
type Lie = (Signer, Bend, &'static str);
fn claims() -> Vec<Lie> {
    vec![
        (Signer::P256, |_, c| c["iss"] = json!("https://evil.test"), "another issuer"),
        (Signer::P256, |_, c| c["iss"] = json!(format!("{ISSUER}/")), "another issuer"),
        (Signer::P256, |_, c| c["aud"] = json!("somebody"), "aud"),
        (Signer::P256, |_, c| c["aud"] = json!([CLIENT, "somebody"]), "aud"),
        (Signer::P256, |_, c| c["aud"] = json!([]), "aud"),
        (Signer::P256, |_, c| c["azp"] = json!("somebody"), "azp"),
        (Signer::P256, |_, c| c["nonce"] = json!("another"), "nonce"),
        (Signer::P256, |_, c| c["nonce"] = Value::Null, "nonce"),
        (Signer::P256, |_, c| c["exp"] = json!(now().as_second() - 61), "time is over"),
        (Signer::P256, |_, c| c["exp"] = json!(-1e308), "time is over"),
        (Signer::P256, |_, c| c["exp"] = json!("tomorrow"), "claims"),
        (Signer::P256, |_, c| c["iat"] = json!(now().as_second() + 61), "another time"),
        (Signer::P256, |_, c| c["iat"] = json!(now().as_second() - 3600), "another time"),
        (Signer::P256, |_, c| c["nbf"] = json!(now().as_second() + 61), "another time"),
        (Signer::P256, |_, c| c["sub"] = json!(""), "names nobody"),
        (Signer::P256, |_, c| c["email"] = Value::Null, "no e-mail address"),
        (Signer::P256, |_, c| c["email"] = json!("ann"), "no e-mail address"),
        (Signer::P256, |_, c| c["email"] = json!("a@b.example, c@d.example"), "no e-mail address"),
        (Signer::P256, |_, c| c["email_verified"] = json!(false), "not verified"),
        (Signer::P256, |_, c| c["email_verified"] = Value::Null, "not verified"),
        (Signer::P256, |_, c| c["email_verified"] = json!("true"), "not verified"),
        (
            Signer::P256,
            |_, c| {
                c["email_verified"] = Value::Null;
                c["xms_edov"] = json!(true);
            },
            "not verified",
        ),
    ]
}
fn signatures() -> Vec<Lie> {
    vec![
        (Signer::Nobody, |_, _| {}, "algorithm is not one"),
        (Signer::Nobody, |h, _| h["alg"] = json!("None"), "algorithm is not one"),
        (Signer::Nobody, |h, _| h["alg"] = json!("ES256"), "not signed"),
        (Signer::HmacOfPublicKey, |_, _| {}, "algorithm is not one"),
        (Signer::HmacOfPublicKey, |h, _| h["alg"] = json!("RS256"), "not signed"),
        (Signer::P256, |h, _| h["alg"] = json!("RS256"), "key is not of its algorithm"),
        (Signer::P256, |h, _| h["kid"] = json!("rsa"), "key is not of its algorithm"),
        (Signer::Rsa, |h, _| h["alg"] = json!("PS256"), "algorithm is not one"),
        (Signer::Rsa, |h, _| h["kid"] = json!("for-encryption"), "not among"),
        (Signer::Rsa, |h, _| h["kid"] = json!("for-pss"), "not among"),
        (Signer::P256, |h, _| h["kid"] = json!("off-curve"), "not among"),
        (Signer::P256, |h, _| h["kid"] = json!("unknown"), "not among"),
        (Signer::P256, |h, _| h["kid"] = Value::Null, "not among"),
        (Signer::P256, |h, _| h["crit"] = json!(["b64"]), "crit"),
        (Signer::P256, |h, _| h["jwk"] = json!({"kty": "EC"}), ""),
        (Signer::Stranger, |_, _| {}, "not signed"),
        (Signer::P256, |_, c| c["given_name"] = json!("x".repeat(40_000)), "no token"),
    ]
}

#[tokio::test]
async fn a_token_that_is_not_right_in_one_thing_is_not_taken() {
    let rows = claims().into_iter().chain(signatures());
    let op = Op::new(now());
    let provider = op.provider(&[]);
    for (number, (signer, bend, why)) in rows.enumerate() {
        op.says(signer, bend);
        match sign_in(&op, &provider, now()).await {
            Ok(_) => assert_eq!(why, "", "row {number} was taken"),
            Err(OidcError::Refused(text)) => {
                assert!(!why.is_empty() && text.contains(why), "row {number}: {text}, not {why}");
            }
            Err(OidcError::Down(text)) => panic!("row {number}: {text}"),
        }
    }
    for leeway in [0, 59] {
        op.says(Signer::P256, |_, _| {});
        op.set_now(now() + SignedDuration::from_secs(leeway));
        assert!(sign_in(&op, &provider, now()).await.is_ok(), "clocks differ by {leeway} s");
    }
}

#[tokio::test]
async fn a_code_is_good_once_and_for_who_has_set_out() {
    let op = Op::new(now());
    let provider = op.provider(&[]);
    let url = provider.leading(&flow(), now()).await.unwrap();
    let (code, _) = op.signs_in(&url);
    assert!(provider.person(&code, &flow(), now()).await.is_ok());
    let again = provider.person(&code, &flow(), now()).await;
    assert!(matches!(&again, Err(OidcError::Refused(text)) if text.contains("400")), "{again:?}");
    let (code, _) = op.signs_in(&url);
    let thief = LoginFlow { verifier: Zeroizing::new("w".repeat(43)), ..flow() };
    let stolen = provider.person(&code, &thief, now()).await;
    assert!(matches!(stolen, Err(OidcError::Refused(_))), "PKCE: {stolen:?}");
}

#[tokio::test]
async fn whose_addresses_a_provider_may_speak_for() {
    let microsoft = "https://login.microsoftonline.com/9188040d/v2.0";
    let mail: Bend = |_, c| c["email"] = json!("ann@gmail.com");
    let hosted: Bend = |_, c| c["hd"] = json!("clinic.example");
    let owned: Bend = |_, c| {
        c["email_verified"] = Value::Null;
        c["xms_edov"] = json!("1");
    };
    let not_owned: Bend = |_, c| {
        c["email_verified"] = Value::Null;
        c["xms_edov"] = json!(false);
    };
    let rows: [(&str, &[&str], Bend, bool, &str); 9] = [
        (ISSUER, &[], |_, _| {}, true, "any that is verified"),
        (ISSUER, &["clinic.example"], |_, _| {}, true, "a domain that is named"),
        (ISSUER, &["other.example"], |_, _| {}, false, "one that is not"),
        (GOOGLE, &[], |_, _| {}, false, "Google, of an address at somebody else's"),
        (GOOGLE, &[], mail, true, "Google, of its own"),
        (GOOGLE, &[], hosted, true, "Google, of an organisation's"),
        (GOOGLE, &["clinic.example"], |_, _| {}, true, "Google, where the operator says so"),
        (microsoft, &[], owned, true, "Microsoft, of a domain whose owner is known"),
        (microsoft, &[], not_owned, false, "Microsoft, of any other"),
    ];
    for (issuer, domains, bend, may, what) in rows {
        let op = Op::new(now());
        op.says(Signer::P256, bend);
        let provider = op.provider_of(issuer, domains);
        let done = sign_in(&op, &provider, now()).await;
        assert_eq!(done.is_ok(), may, "{what}: {done:?}");
    }
}

#[tokio::test]
async fn what_a_provider_says_of_itself_must_be_right() {
    let rows = [
        ("issuer", json!("https://op.test/realm/"), "another issuer"),
        ("issuer", json!("https://op.test/{tenantid}/v2.0"), "another issuer"),
        ("token_endpoint", json!("http://op.test/token"), "without https"),
        ("jwks_uri", json!("https://op.test@evil.test/"), "without https"),
        ("authorization_endpoint", json!("javascript:alert(1)"), "without https"),
        ("authorization_endpoint", json!("https://op.test/\r\nSet-Cookie: a=b"), "without https"),
        ("userinfo_endpoint", json!("http://op.test/userinfo"), "without https"),
        ("jwks_uri", Value::Null, "no configuration"),
    ];
    for (key, value, why) in rows {
        let op = Op::new(now());
        let provider = op.provider(&[]);
        op.set_metadata(key, value.clone());
        match provider.leading(&flow(), now()).await {
            Err(OidcError::Down(text)) => assert!(text.contains(why), "{key} {value}: {text}"),
            other => panic!("{key} {value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_left_alone_for_a_while_and_new_keys_are_found() {
    let op = Op::new(now());
    let provider = op.provider(&[]);
    assert_eq!(provider.health(), None);
    op.set_down(&["/realm/.well-known/openid-configuration"]);
    for _ in 0..5 {
        assert!(matches!(provider.leading(&flow(), now()).await, Err(OidcError::Down(_))));
    }
    assert_eq!(op.asked().len(), 1, "not asked again at once");
    assert!(matches!(provider.health(), Some(Err(OidcError::Down(_)))));
    op.set_down(&[]);
    let later = now() + REST;
    assert!(provider.leading(&flow(), later).await.is_ok());
    assert_eq!(provider.health(), Some(Ok(())));
    op.set_now(later);
    let keys = op.own_keys();
    op.set_keys(json!({"keys": []}));
    let refused = sign_in(&op, &provider, later).await;
    assert!(matches!(&refused, Err(OidcError::Refused(text)) if text.contains("not among")));
    op.set_keys(keys);
    op.asked();
    for _ in 0..5 {
        assert!(sign_in(&op, &provider, later).await.is_err());
    }
    assert!(
        !op.asked().contains(&"/keys".to_owned()),
        "no key that is unknown fetches them at will"
    );
    let later = later + REST;
    op.set_now(later);
    assert!(sign_in(&op, &provider, later).await.is_ok(), "new keys are taken");
    for bad in [json!([]), json!({"keys": 7}), json!({})] {
        op.set_keys(bad.clone());
        let fresh = op.provider(&[]);
        let done = sign_in(&op, &fresh, later).await;
        assert!(matches!(done, Err(OidcError::Down(_))), "{bad}: {done:?}");
    }
}

/// A provider that keeps the address out of its ID tokens.
fn without_address() -> Arc<Op> {
    let op = Op::new(now());
    op.says(Signer::P256, |_, c| {
        for claim in ["email", "email_verified", "given_name", "family_name"] {
            c.as_object_mut().unwrap().remove(claim);
        }
    });
    op.set_metadata("userinfo_endpoint", json!(USERINFO));
    op
}

#[tokio::test]
async fn an_address_that_only_userinfo_tells_is_taken() {
    let op = without_address();
    let provider = op.provider(&[]);
    let ann = sign_in(&op, &provider, now()).await.unwrap();
    assert_eq!(ann.address.to_string(), "ann@clinic.example");
    assert_eq!((ann.first_name.as_str(), ann.last_name.as_str()), ("Ann", "Ode"));
    op.says(Signer::P256, |_, _| {});
    op.asked();
    assert!(sign_in(&op, &provider, now()).await.is_ok());
    assert!(!op.asked().contains(&"/userinfo".to_owned()), "not asked where the token has it");
}

#[tokio::test]
async fn userinfo_that_is_not_right_in_one_thing_is_not_taken() {
    let whole = || json!({"sub": "17", "email": "ann@clinic.example", "email_verified": true});
    let with = |key: &str, value: Value| {
        let mut info = whole();
        info[key] = value;
        info
    };
    let json = "application/json";
    let rows: [(Value, &'static str, &'static str, &str); 11] = [
        (with("sub", json!("18")), json, "Bearer", "another person"),
        (with("sub", json!("17 ")), json, "Bearer", "another person"),
        (with("sub", Value::Null), json, "Bearer", "can't be read"),
        (with("email_verified", json!(false)), json, "Bearer", "not verified"),
        (with("email_verified", json!("true")), json, "Bearer", "not verified"),
        (with("email_verified", Value::Null), json, "Bearer", "not verified"),
        (with("xms_edov", json!(true)), json, "Bearer", ""),
        (with("email", Value::Null), json, "Bearer", "no e-mail address"),
        (json!([]), json, "Bearer", "can't be read"),
        (whole(), "application/jwt", "Bearer", "not JSON"),
        (whole(), json, "DPoP", "no bearer token"),
    ];
    let op = without_address();
    let provider = op.provider(&[]);
    for (number, (info, media_type, token_type, why)) in rows.into_iter().enumerate() {
        op.set_userinfo(info, media_type, token_type);
        match sign_in(&op, &provider, now()).await {
            Ok(_) => assert_eq!(why, "", "row {number} was taken"),
            Err(OidcError::Refused(text)) => {
                assert!(!why.is_empty() && text.contains(why), "row {number}: {text}, not {why}");
            }
            Err(OidcError::Down(text)) => panic!("row {number}: {text}"),
        }
    }
    op.set_userinfo(whole(), json, "Bearer");
    op.set_down(&["/userinfo"]);
    let down = sign_in(&op, &provider, now()).await;
    assert!(matches!(down, Err(OidcError::Down(_))), "{down:?}");
}

#[tokio::test]
async fn the_domain_of_an_address_from_userinfo_is_judged_by_what_userinfo_says() {
    let op = without_address();
    let provider = op.provider_of(GOOGLE, &[]);
    op.says(Signer::P256, |_, c| {
        c.as_object_mut().unwrap().remove("email");
        c["hd"] = json!("clinic.example");
    });
    let mixed = sign_in(&op, &provider, now()).await;
    assert!(matches!(&mixed, Err(OidcError::Refused(t)) if t.contains("domain")), "{mixed:?}");
}

#[tokio::test]
async fn what_is_asked_of_a_provider_is_what_it_announces() {
    let asked = |url: &str| -> std::collections::BTreeMap<String, String> {
        form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
    };
    let rows = [
        (Value::Null, Prompt::SelectAccount, Some("select_account")),
        (json!(["none", "login", "select_account"]), Prompt::SelectAccount, Some("select_account")),
        (json!(["none", "login", "consent"]), Prompt::SelectAccount, Some("login")),
        (json!(["none"]), Prompt::SelectAccount, None),
        (Value::Null, Prompt::Login, Some("login")),
    ];
    for (announced, prompt, expected) in rows {
        let op = Op::new(now());
        let provider = op.provider(&[]);
        op.set_metadata("prompt_values_supported", announced.clone());
        let url = provider.leading(&LoginFlow { prompt, ..flow() }, now()).await.unwrap();
        let asked = asked(&url);
        assert_eq!(asked.get("prompt").map(String::as_str), expected, "{announced}");
        assert_eq!(asked.get("claims"), None, "not announced");
    }
    let op = Op::new(now());
    let provider = op.provider(&[]);
    op.set_metadata("claims_parameter_supported", json!(true));
    let url = provider.leading(&flow(), now()).await.unwrap();
    let claims: Value = serde_json::from_str(&asked(&url)["claims"]).unwrap();
    assert_eq!(claims["id_token"]["email"], json!({"essential": true}));
    assert_eq!(claims["id_token"]["email_verified"], json!({"essential": true}));
}

#[tokio::test]
async fn an_answer_names_its_issuer_where_that_is_announced() {
    let op = Op::new(now());
    let (silent, other) = (op.provider(&[]), Some("https://evil.test"));
    assert_eq!(silent.answered(None, now()).await, Ok(true));
    assert_eq!(silent.answered(Some(ISSUER), now()).await, Ok(true));
    assert_eq!(silent.answered(other, now()).await, Ok(false));
    op.set_metadata("authorization_response_iss_parameter_supported", json!(true));
    let naming = op.provider(&[]);
    assert_eq!(naming.answered(None, now()).await, Ok(false));
    assert_eq!(naming.answered(Some(ISSUER), now()).await, Ok(true));
    assert_eq!(naming.answered(other, now()).await, Ok(false));
}

#[tokio::test]
async fn a_refetch_of_keys_that_fails_leaves_the_good_ones() {
    let op = Op::new(now());
    let provider = op.provider(&[]);
    assert!(sign_in(&op, &provider, now()).await.is_ok());
    let later = now() + REST;
    op.set_now(later);
    op.set_down(&["/keys"]);
    op.says(Signer::P256, |h, _| h["kid"] = json!("unknown"));
    op.asked();
    for _ in 0..3 {
        let unknown = sign_in(&op, &provider, later).await;
        assert!(matches!(unknown, Err(OidcError::Down(_))), "{unknown:?}");
    }
    assert_eq!(op.asked().iter().filter(|place| *place == "/keys").count(), 1);
    assert!(matches!(provider.health(), Some(Err(OidcError::Down(_)))));
    op.says(Signer::P256, |_, _| {});
    assert!(sign_in(&op, &provider, later).await.is_ok(), "all others go on");
    op.set_down(&[]);
    op.says(Signer::P256, |h, _| h["kid"] = json!("unknown"));
    let (later, refused) = (later + REST, "not among");
    op.set_now(later);
    let unknown = sign_in(&op, &provider, later).await;
    assert!(matches!(&unknown, Err(OidcError::Refused(t)) if t.contains(refused)), "{unknown:?}");
    assert_eq!(provider.health(), Some(Ok(())));
}

#[test]
fn places_are_https_and_plain() {
    for (url, host, port, path) in [
        ("https://op.test", "op.test", None, "/"),
        ("https://OP.test:8443/a?b=c", "op.test", Some(8443), "/a?b=c"),
        ("https://[::1]:9/x", "::1", Some(9), "/x"),
    ] {
        let place = WebPlace { host: host.to_owned(), port, path: path.to_owned() };
        assert_eq!(place_of(url), Some(place), "{url}");
    }
    for wrong in
        ["http://op.test", "https://", "https://a@b", "https://a:b/", "https://a/\nb", "op"]
    {
        assert_eq!(place_of(wrong), None, "{wrong}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let op = Op::new(now());
    let provider = op.provider(&[]);
    let shown = format!("{provider:?} {:?} {:?}", flow(), basic("a", "b"));
    assert!(!shown.contains(SECRET) && !shown.contains("vvv"), "{shown}");
}
