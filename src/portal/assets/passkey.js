// Talks to the device that holds the passkey, and fills in the form that goes to the portal.
"use strict";
(() => {
  const form = document.getElementById("passkey-form");
  const start = document.getElementById("passkey-start");
  const trouble = document.getElementById("passkey-trouble");
  const bytes = (text) => {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (c) => c.charCodeAt(0));
  };
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const say = (words) => {
    trouble.textContent = words;
    trouble.hidden = false;
  };
  const fill = (name, value) => {
    form.elements.namedItem(name).value = value;
  };
  const known = (form.dataset.known || "").split(" ").filter(Boolean);

  const add = async () => {
    const made = await navigator.credentials.create({
      publicKey: {
        challenge: bytes(form.dataset.challenge),
        rp: { id: form.dataset.party, name: form.dataset.organization },
        user: {
          id: bytes(form.dataset.user),
          name: form.dataset.address,
          displayName: form.dataset.address,
        },
        pubKeyCredParams: [-7, -8, -257].map((alg) => ({ type: "public-key", alg })),
        excludeCredentials: known.map((id) => ({ type: "public-key", id: bytes(id) })),
        authenticatorSelection: { residentKey: "required", userVerification: "required" },
        attestation: "none",
      },
    });
    const said = made.response;
    fill("client_data", text(said.clientDataJSON));
    fill("authenticator_data", text(said.getAuthenticatorData()));
    fill("public_key", text(said.getPublicKey()));
    fill("algorithm", String(said.getPublicKeyAlgorithm()));
  };
  const signIn = async () => {
    const found = await navigator.credentials.get({
      publicKey: {
        challenge: bytes(form.dataset.challenge),
        rpId: form.dataset.party,
        userVerification: "required",
      },
    });
    const said = found.response;
    fill("credential", text(found.rawId));
    fill("client_data", text(said.clientDataJSON));
    fill("authenticator_data", text(said.authenticatorData));
    fill("signature", text(said.signature));
    fill("user_handle", said.userHandle ? text(said.userHandle) : "");
  };

  if (!window.PublicKeyCredential) {
    say(form.dataset.none);
    return;
  }
  start.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    trouble.hidden = true;
    try {
      await (form.dataset.user ? add() : signIn());
      form.submit();
    } catch (error) {
      say(
        error.name === "InvalidStateError"
          ? form.dataset.twice
          : form.dataset.failed
      );
    }
  });
})();
