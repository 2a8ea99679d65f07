# What has to be there before Terraform has a place for its state: a bucket, the key that encrypts it, and, if wanted, the
# role of the workflow that looks for drift. Once in each account.

provider "aws" {
  region = var.aws_region

  default_tags {
    tags = {
      Project   = "FlowViz"
      ManagedBy = "Terraform bootstrap"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
}

resource "aws_kms_key" "state" {
  description             = "Terraform states"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true # without the key no state can be read
  }
}

resource "aws_kms_alias" "state" {
  name          = "alias/${var.bucket_prefix}"
  target_key_id = aws_kms_key.state.key_id
}

# Versions are the way back from a state that was written wrong. S3 deletes no bucket with something in it, so a destroy by
# mistake ends there.
module "state" {
  source = "../modules/bucket"

  name               = "${var.bucket_prefix}-${local.account_id}"
  kms_key_arn        = aws_kms_key.state.arn
  keep_versions_days = 90
}

# --- The role of the drift workflow ---

resource "aws_iam_openid_connect_provider" "github" {
  count = var.drift_repository != null ? 1 : 0

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "drift_assume" {
  count = var.drift_repository != null ? 1 : 0

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.github[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    # One branch: a pull request's workflow is written by whoever opens it.
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["repo:${var.drift_repository}:ref:refs/heads/${var.drift_branch}"]
    }
  }
}

resource "aws_iam_role" "drift" {
  count = var.drift_repository != null ? 1 : 0

  name                 = "terraform-drift"
  description          = "Plans, to find what was changed by hand; changes nothing"
  assume_role_policy   = data.aws_iam_policy_document.drift_assume[0].json
  max_session_duration = 3600
}

# A plan reads every kind of resource there is in the configuration; AWS keeps the list of what reading takes. It reads no
# secret's value.
resource "aws_iam_role_policy_attachment" "drift" {
  count = var.drift_repository != null ? 1 : 0

  role       = aws_iam_role.drift[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/ReadOnlyAccess"
}

data "aws_iam_policy_document" "drift" {
  count = var.drift_repository != null ? 1 : 0

  statement {
    sid       = "DecryptState"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.state.arn]
  }

  # ReadOnlyAccess may read what is in buckets: of that a plan needs the state alone.
  statement {
    sid           = "DenyData"
    effect        = "Deny"
    actions       = ["s3:GetObject*"]
    not_resources = ["${module.state.arn}/*"]
  }
}

resource "aws_iam_role_policy" "drift" {
  count = var.drift_repository != null ? 1 : 0

  name   = "state"
  role   = aws_iam_role.drift[0].id
  policy = data.aws_iam_policy_document.drift[0].json
}
