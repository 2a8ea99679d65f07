# Buckets: backups, static assets, and the load balancer's logs. Backups and assets are copied to another region, where
# one is named.

locals {
  # Names of buckets are the whole world's, hence the account.
  bucket_prefix = "${local.name}-${local.account_id}"
  replicated = var.replica_region == null ? {} : {
    backups = module.backups
    assets  = module.assets
  }
}

module "backups" {
  source = "./modules/bucket"

  name              = "${local.bucket_prefix}-backups"
  kms_key_arn       = aws_kms_key.data.arn
  expire_after_days = var.backup_retention_days
  deletable         = !local.production
}

module "assets" {
  source = "./modules/bucket"

  name        = "${local.bucket_prefix}-assets"
  kms_key_arn = aws_kms_key.data.arn
  deletable   = !local.production
}

data "aws_iam_policy_document" "load_balancer_logs" {
  statement {
    sid       = "LoadBalancerLogs"
    actions   = ["s3:PutObject"]
    resources = [for prefix in ["access", "connections"] : "arn:${local.partition}:s3:::${local.bucket_prefix}-logs/${prefix}/AWSLogs/${local.account_id}/*"]

    principals {
      type        = "Service"
      identifiers = ["logdelivery.elasticloadbalancing.amazonaws.com"]
    }

    # A balancer of this account, and not one of somebody else's who names our bucket.
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:elasticloadbalancing:${var.aws_region}:${local.account_id}:loadbalancer/*"]
    }
  }
}

module "logs" {
  source = "./modules/bucket"

  name               = "${local.bucket_prefix}-logs"
  kms_key_arn        = null # load balancers know no other than S3's own keys
  expire_after_days  = var.log_retention_days
  keep_versions_days = 1
  policy_documents   = [data.aws_iam_policy_document.load_balancer_logs.json]
  deletable          = !local.production
}

# --- Copies ---

resource "aws_kms_key" "replica" {
  provider = aws.replica
  count    = var.replica_region != null ? 1 : 0

  description             = "${local.name}: copies of buckets"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

module "backups_replica" {
  source    = "./modules/bucket"
  providers = { aws = aws.replica }
  count     = var.replica_region != null ? 1 : 0

  name              = "${local.bucket_prefix}-backups-replica"
  kms_key_arn       = aws_kms_key.replica[0].arn
  expire_after_days = var.backup_retention_days
  deletable         = !local.production
}

module "assets_replica" {
  source    = "./modules/bucket"
  providers = { aws = aws.replica }
  count     = var.replica_region != null ? 1 : 0

  name        = "${local.bucket_prefix}-assets-replica"
  kms_key_arn = aws_kms_key.replica[0].arn
  deletable   = !local.production
}

resource "aws_s3_bucket_replication_configuration" "main" {
  for_each = local.replicated

  bucket = each.value.versioning
  role   = aws_iam_role.replication[0].arn

  rule {
    id     = "all"
    status = "Enabled"

    filter {}

    # What is deleted here stays there until its own lifecycle takes it: a copy is for the day when somebody deletes.
    delete_marker_replication {
      status = "Disabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = { backups = one(module.backups_replica[*].arn), assets = one(module.assets_replica[*].arn) }[each.key]
      storage_class = "STANDARD_IA"

      encryption_configuration {
        replica_kms_key_id = aws_kms_key.replica[0].arn
      }
    }
  }

  depends_on = [module.backups_replica, module.assets_replica]
}
