"""The knowledge base of Kestrel, the shop platform that the simulated bot supports.

Nobody runs Kestrel. Its articles are written like a real help centre's, each sentence with a number, a date or an id
of its own, so that an answer taken from them can be told from one that was made up.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["ARTICLES", "Article"]


class Article(msgspec.Struct, frozen=True):
    """One help article: what the retriever finds and an answer may say.

    >>> ARTICLES[0].text.startswith("Refund a duplicate charge. ")
    True
    """

    id: str
    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The title and the sentences in one paragraph, as the index stores it."""
        return f"{self.title}. {' '.join(self.sentences)}"


ARTICLES: Final[tuple[Article, ...]] = (
    Article(
        "kb-101",
        "Refund a duplicate charge",
        (
            "A duplicate charge is refunded in full when you report it within 60 days.",
            "Open Billing, choose the invoice and press Report duplicate to start the refund.",
            "The refund reaches a credit card within 5 business days and a bank account within 9.",
            "Every refund has a number that begins with RF- and is listed in the billing history.",
        ),
    ),
    Article(
        "kb-102",
        "Change or cancel a plan",
        (
            "You can change your plan at any time under Settings, Plan and the new price is prorated to the day.",
            "A downgrade takes effect at the end of the billing period, an upgrade within 2 minutes.",
            "To cancel an annual plan with a refund, write to billing within 14 days of the renewal.",
            "A cancelled shop stays readable for 30 days and is deleted after 90 days.",
        ),
    ),
    Article(
        "kb-103",
        "Invoices and tax numbers",
        (
            "Invoices are issued on the 1st of each month and sent to every billing contact.",
            "Add your VAT or tax number under Settings, Company before the invoice is issued.",
            "A tax number that was added later appears from the next invoice on, old invoices are not reissued.",
            "Download up to 24 months of invoices as one PDF from the Invoices page.",
        ),
    ),
    Article(
        "kb-104",
        "Failed payments and retries",
        (
            "A failed payment is retried 4 times, after 1, 3, 5 and 7 days.",
            "The shop stays open during the retries and is paused on day 10 if no payment succeeds.",
            "Update the card under Billing, Payment method to retry the failed payment at once.",
            "Error code PM-402 means that the bank declined the card, code PM-409 that it expired.",
        ),
    ),
    Article(
        "kb-105",
        "Create and rotate API keys",
        (
            "Create an API key under Developers, Keys; the secret is shown only once.",
            "An API key begins with kst_live_ in production and with kst_test_ in the sandbox.",
            "Rotate a key every 90 days; the old key keeps working for 24 hours after a rotation.",
            "Each shop can hold 20 active API keys, each with its own scopes.",
        ),
    ),
    Article(
        "kb-106",
        "API rate limits",
        (
            "The API allows 600 requests per minute for each shop with bursts of 100 requests.",
            "A request above the rate limit gets status 429 with a Retry-After header in seconds.",
            "Bulk endpoints count 10 requests for each call and accept 250 records at once.",
            "Enterprise shops can ask support to raise the API rate limit to 3000 requests per minute.",
        ),
    ),
    Article(
        "kb-107",
        "Webhooks and signatures",
        (
            "Webhooks are signed with HMAC SHA-256 in the header X-Kestrel-Signature.",
            "A webhook that does not answer with status 200 within 10 seconds is delivered again.",
            "Delivery is tried 12 times over 48 hours, then the webhook endpoint is disabled.",
            "Verify the webhook signature with the signing secret shown under Developers, Webhooks.",
        ),
    ),
    Article(
        "kb-108",
        "Single sign-on with SAML",
        (
            "Single sign-on with SAML 2.0 is part of the Business plan and above.",
            "Upload the metadata file of your identity provider under Security, Single sign-on.",
            "The SAML certificate must use at least 2048 bits and is checked 30 days before it expires.",
            "Owners can still log in with a password for 7 days after single sign-on is enforced.",
        ),
    ),
    Article(
        "kb-109",
        "Two-factor login",
        (
            "Turn on two-factor login under Profile, Security with any authenticator app.",
            "You get 10 recovery codes, each of which works once when the phone is lost.",
            "An owner can reset the two-factor login of a member under Team after a waiting time of 24 hours.",
            "Codes by text message were switched off on 1 March 2026.",
        ),
    ),
    Article(
        "kb-110",
        "Reset a password",
        (
            "Press Forgot password on the login page to get a reset link by e-mail.",
            "The reset link is valid for 45 minutes and works once.",
            "A password needs at least 12 characters and must differ from your last 5 passwords.",
            "After 8 failed logins the account is locked for 15 minutes.",
        ),
    ),
    Article(
        "kb-111",
        "Invite team members and set roles",
        (
            "Invite team members under Team, Invite; an invitation is valid for 7 days.",
            "There are 4 roles: owner, admin, editor and viewer.",
            "The Starter plan includes 3 team members, the Business plan includes 25.",
            "Only an owner can change the role of an admin or transfer the shop.",
        ),
    ),
    Article(
        "kb-112",
        "Export your data",
        (
            "Start a data export under Settings, Export and choose CSV or JSON.",
            "An export of 100000 orders takes about 20 minutes and is sent as a link by e-mail.",
            "The export link expires after 72 hours, and a shop can run 3 exports a day.",
            "Personal data in an export is masked unless an owner starts it.",
        ),
    ),
    Article(
        "kb-113",
        "Import products from a file",
        (
            "Import products from a CSV file of up to 50 MB or 40000 rows.",
            "The columns sku, title and price are required, a missing sku stops the import at that row.",
            "Existing products are updated when their sku matches, and a preview shows the first 100 changes.",
            "An import can be undone for 48 hours under Products, Imports.",
        ),
    ),
    Article(
        "kb-114",
        "Shipping zones and rates",
        (
            "Create a shipping zone under Shipping, Zones and add countries or postal codes to it.",
            "A shop can have 50 shipping zones with 20 rates each.",
            "Free shipping can start at an order value, for example above 75 euros.",
            "Rates by weight are rounded up to the next 100 grams.",
        ),
    ),
    Article(
        "kb-115",
        "Track a parcel",
        (
            "The tracking number is sent by e-mail within 2 hours after the parcel is handed over.",
            "Tracking numbers of our carrier begin with KX and have 14 characters.",
            "A parcel without a scan for 6 days can be reported as lost under Orders, Tracking.",
            "A lost parcel is replaced or refunded within 10 business days.",
        ),
    ),
    Article(
        "kb-116",
        "Returns and return labels",
        (
            "Customers can return an item within 30 days of delivery.",
            "A return label costs 4.90 euros and is taken from the refund unless the item is faulty.",
            "Create a return label under Orders, Returns; it is valid for 21 days.",
            "The refund for a return is paid within 7 days after the item arrives at the warehouse.",
        ),
    ),
    Article(
        "kb-117",
        "Connect a custom domain",
        (
            "Connect a custom domain by adding a CNAME record that points to shops.kestrel.example.",
            "The TLS certificate is issued within 60 minutes after the record is visible.",
            "A root domain needs an A record to 203.0.113.40 instead of a CNAME record.",
            "Each plan includes 1 custom domain, further domains cost 3 euros per month.",
        ),
    ),
    Article(
        "kb-118",
        "Discount codes",
        (
            "A discount code has 4 to 24 characters and can take off a percentage or a fixed amount.",
            "Limit a discount code by date, by number of uses or to one use per customer.",
            "Up to 3 discount codes can be combined in one order when stacking is allowed.",
            "Create 10000 unique discount codes at once with the bulk generator.",
        ),
    ),
    Article(
        "kb-119",
        "Gift cards",
        (
            "Gift cards can be sold in amounts from 10 to 500 euros.",
            "A gift card is valid for 3 years from the end of the year in which it was bought.",
            "The gift card code has 16 characters and is sent by e-mail within 5 minutes.",
            "A gift card cannot be refunded after part of its balance was used.",
        ),
    ),
    Article(
        "kb-120",
        "Inventory and low stock alerts",
        (
            "Set a low stock alert for each product; the default threshold is 5 units.",
            "Inventory is synchronised between locations every 90 seconds.",
            "A product can be tracked in up to 30 locations.",
            "Overselling can be allowed for each product, with a limit of 999 units.",
        ),
    ),
    Article(
        "kb-121",
        "Payout schedule",
        (
            "Payouts are sent every Tuesday and Friday for orders that are at least 3 days old.",
            "The first payout of a new shop is held for 7 days while the bank account is verified.",
            "A payout below 20 euros is carried over to the next payout date.",
            "A failed payout is repeated after 2 business days and shows the code PO-311.",
        ),
    ),
    Article(
        "kb-122",
        "Chargebacks and disputes",
        (
            "Answer a chargeback with evidence within 9 days of the notice.",
            "A lost dispute costs a fee of 15 euros, a won dispute costs nothing.",
            "Upload up to 8 evidence files of 4 MB each under Payments, Disputes.",
            "The bank decides a dispute within 75 days, and the amount is held until then.",
        ),
    ),
    Article(
        "kb-123",
        "Data retention and deletion requests",
        (
            "A customer's deletion request must be answered within 30 days.",
            "Erase a customer under Customers, Privacy; orders are kept in anonymous form for 10 years.",
            "Audit logs are kept for 400 days, and backups are deleted after 35 days.",
            "The data processing agreement has the version DPA-2026-02.",
        ),
    ),
    Article(
        "kb-124",
        "Service status and support hours",
        (
            "The status page at status.kestrel.example is updated within 15 minutes of an incident.",
            "Support answers on weekdays from 8:00 to 20:00 CET, urgent incidents at any hour.",
            "The Business plan promises a first support reply within 4 hours, the Starter plan within 24.",
            "Maintenance takes place on the first Sunday of a month between 02:00 and 04:00 UTC.",
        ),
    ),
    Article(
        "kb-125",
        "Point of sale terminals",
        (
            "Pair a terminal with the 6 digit code shown under Sales, Terminals.",
            "A terminal works offline for 24 hours and stores up to 500 payments.",
            "Receipts are printed on paper rolls of 57 mm width.",
            "A terminal that shows error T-17 needs a restart with the power key held for 12 seconds.",
        ),
    ),
)
"""Everything that the bot knows. Order is fixed: seeded traffic refers to articles by position."""
