// Consent strings by the IAB Tech Lab's own encoders, and what those were told to encode: vectors.json says how to run this.
const { TCModel, TCString, GVL, PurposeRestriction, RestrictionType, Segment } = require("@iabtechlabtcf/core");
const { GppModel } = require("@iabgpp/cmpapi");

const all = (count) => Array.from({ length: count }, (_, index) => index + 1);
const vendor = (id) => ({ id, name: `vendor ${id}`, purposes: [1, 3, 4], legIntPurposes: [2, 7, 9, 10],
  flexiblePurposes: [2, 7, 9, 10], specialPurposes: [], features: [], specialFeatures: [], dataDeclaration: [] });
const purpose = (id) => ({ id, name: `purpose ${id}`, description: "", illustrations: [] });
const gvl = () => new GVL({
  gvlSpecificationVersion: 3, vendorListVersion: 142, tcfPolicyVersion: 5, lastUpdated: "2026-01-08T16:00:00Z",
  purposes: Object.fromEntries(all(11).map((id) => [id, purpose(id)])), specialPurposes: {}, features: {},
  specialFeatures: { 1: purpose(1), 2: purpose(2) }, stacks: {}, dataCategories: {},
  vendors: Object.fromEntries(all(1200).map((id) => [id, vendor(id)])),
});

const TCF = {
  nothing: {},
  everything: { purposeConsents: all(11), purposeLegitimateInterests: [2, 7, 8, 9, 10, 11], vendorConsents: all(60),
    vendorLegitimateInterests: all(60), specialFeatureOptins: [1, 2], vendorsDisclosed: all(60) },
  few_vendors: { purposeConsents: [1, 7], vendorConsents: [755, 1126], vendorsDisclosed: [755, 804, 1126] },
  legitimate_interest: { purposeConsents: [1], purposeLegitimateInterests: [2, 7, 9, 10], vendorConsents: [755],
    vendorLegitimateInterests: [755, 804] },
  restricted: { purposeConsents: [1, 3, 4, 7], vendorConsents: [1, 2, 755],
    restrictions: [[7, 0, 755], [7, 0, 756], [2, 1, 10]] },
  purpose_one_not_asked: { purposeConsents: [7], vendorConsents: [755], purposeOneTreatment: true, publisherCountryCode: "LU" },
  segments: { purposeConsents: [1, 2], vendorConsents: [2, 3, 5], vendorsDisclosed: [2, 3, 5, 9], vendorsAllowed: [2, 9],
    publisherConsents: [1, 3], publisherLegitimateInterests: [2], numCustomPurposes: 3, publisherCustomConsents: [2],
    publisherCustomLegitimateInterests: [1, 3], supportOOB: true },
};

const KINDS = ["NOT_ALLOWED", "REQUIRE_CONSENT", "REQUIRE_LI"];
const tcf = (given) => {
  const model = new TCModel(gvl());
  model.cmpId = 31; model.cmpVersion = 640; model.consentScreen = 1; model.consentLanguage = "en";
  model.publisherCountryCode = given.publisherCountryCode || "DE";
  model.isServiceSpecific = !given.supportOOB;
  model.purposeOneTreatment = !!given.purposeOneTreatment;
  for (const [name, value] of Object.entries(given))
    if (Array.isArray(value) && name !== "restrictions") value.length && model[name].set(value);
  if (given.numCustomPurposes) model.numCustomPurposes = given.numCustomPurposes;
  for (const [id, kind, who] of given.restrictions || [])
    model.publisherRestrictions.add(who, new PurposeRestriction(id, RestrictionType[KINDS[kind]]));
  model.created = model.lastUpdated = new Date("2026-02-03T00:00:00Z");
  const segments = [Segment.CORE];
  if (given.vendorsDisclosed) segments.push(Segment.VENDORS_DISCLOSED);
  if (given.vendorsAllowed) segments.push(Segment.VENDORS_ALLOWED);
  if (given.publisherConsents) segments.push(Segment.PUBLISHER_TC);
  model.supportOOB = true;
  return TCString.encode(model, { segments, isForVendors: false });
};

const GPP = {
  empty: {},
  usnat_nothing: { usnat: { SaleOptOut: 2, SharingOptOut: 2, TargetedAdvertisingOptOut: 2, Gpc: false } },
  usnat_sale: { usnat: { SaleOptOut: 1, SharingOptOut: 2, TargetedAdvertisingOptOut: 0 } },
  usnat_targeted: { usnat: { TargetedAdvertisingOptOut: 1 } },
  usnat_gpc: { usnat: { SaleOptOut: 2, Gpc: true } },
  usnat_child: { usnat: { KnownChildSensitiveDataConsents: [0, 1, 0] } },
  usnat_sensitive: { usnat: { SensitiveDataProcessing: [0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, 0, 0, 1] } },
  usnat_version_1: { usnat: { Version: 1, SaleOptOut: 2, SensitiveDataProcessing: [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    KnownChildSensitiveDataConsents: [0, 2], MspaServiceProviderMode: 1 } },
  usca_sharing: { usca: { SaleOptOut: 2, SharingOptOut: 1, Gpc: false } },
  usca_gpc: { usca: { Gpc: true } },
  uspv1: { uspv1: { Notice: "Y", OptOutSale: "N", LspaCovered: "N" } },
  virginia: { usva: { SaleOptOut: 2 } },
  several: { tcfeuv2: { PurposeConsents: [true, false, false, false, false, false, true], VendorConsents: [755, 804] },
    uspv1: { OptOutSale: "Y" }, usnat: { SaleOptOut: 2 }, usca: { SaleOptOut: 2 } },
};

const gpp = (given) => {
  const model = new GppModel();
  for (const [section, fields] of Object.entries(given))
    for (const [name, value] of Object.entries(fields)) model.setFieldValue(section, name, value);
  if (given.tcfeuv2) { // else these are of the moment of encoding
    model.setFieldValue("tcfeuv2", "Created", new Date("2026-02-03T00:00:00Z"));
    model.setFieldValue("tcfeuv2", "LastUpdated", new Date("2026-02-03T00:00:00Z"));
  }
  return model.encode();
};

const made = (cases, encode) => Object.entries(cases).map(([name, given]) =>
  `    ${JSON.stringify(name)}: ${JSON.stringify({ string: encode(given), given })}`).join(",\n");
console.log(`{
  "made_with": "npm install @iabtechlabtcf/core@1.5.21 @iabgpp/cmpapi@3.2.0 && node make_vectors.js > vectors.json",
  "tcf": {\n${made(TCF, tcf)}\n  },
  "gpp": {\n${made(GPP, gpp)}\n  }
}`);
