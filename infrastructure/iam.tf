# Who may do what. The nodes' own policies are in two documents: what the agent needs, which `flowagent iam-policy`
# prints for a configuration, and what the machine needs beside it. Each statement is one purpose.

data "aws_iam_policy_document" "assume" {
  for_each = {
    node                = "ec2.amazonaws.com"
    flow_log            = "vpc-flow-logs.amazonaws.com"
    database_monitoring = "monitoring.rds.amazonaws.com"
    replication         = "s3.amazonaws.com"
  }

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }

    # EC2 assumes a role for an instance and names no source; the others could be sent by a stranger.
    dynamic "condition" {
      for_each = each.key == "node" ? [] : [local.account_id]

      content {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [condition.value]
      }
    }
  }
}

# --- Nodes ---

resource "aws_iam_role" "node" {
  name               = "${local.name}-node"
  description        = "Nodes of ${local.name}"
  assume_role_policy = data.aws_iam_policy_document.assume["node"].json
}

resource "aws_iam_instance_profile" "node" {
  name = "${local.name}-node"
  role = aws_iam_role.node.name
}

locals {
  node_secrets = distinct([for s in var.node_secrets : s.secret])

  # The groups are made after the role, since their first nodes need it: so by name. The star is a group's id.
  group_arns = [for name in values(local.group_names) : "arn:${local.partition}:autoscaling:${var.aws_region}:${local.account_id}:autoScalingGroup:*:autoScalingGroupName/${name}"]
}

data "aws_iam_policy_document" "agent" {
  statement {
    sid       = "ReadOwnSecrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [for name in sort(local.node_secrets) : aws_secretsmanager_secret.main[name].arn]
  }

  # AWS knows no resource for this call, which the agent makes for two or more secrets. It gives out nothing that
  # ReadOwnSecrets doesn't.
  dynamic "statement" {
    for_each = length(local.node_secrets) > 1 ? [var.aws_region] : []

    content {
      sid       = "ReadSecretsInBatches"
      actions   = ["secretsmanager:BatchGetSecretValue"]
      resources = ["*"]

      condition {
        test     = "StringEquals"
        variable = "aws:RequestedRegion"
        values   = [statement.value]
      }
    }
  }

  statement {
    sid       = "DecryptOwnSecrets"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.data.arn]

    # The key is the database's and the buckets' as well: this is for secrets alone, and for the node's own.
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${var.aws_region}.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:SecretARN"
      values   = [for name in sort(local.node_secrets) : aws_secretsmanager_secret.main[name].arn]
    }
  }

  # A token is for the whole registry; AWS knows no resource for it. What it opens is said by PullOwnImages.
  statement {
    sid       = "AuthorizeRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.aws_region]
    }
  }

  statement {
    sid       = "PullOwnImages"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [for name in sort(var.repositories) : aws_ecr_repository.main[name].arn]
  }

  # AWS knows no resource for any Describe call of Auto Scaling or load balancing.
  statement {
    sid = "DescribeFleet"
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLifecycleHooks",
      "elasticloadbalancing:DescribeTargetGroupAttributes",
      "elasticloadbalancing:DescribeTargetHealth",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.aws_region]
    }
  }

  statement {
    sid       = "CompleteOwnHooks"
    actions   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
    resources = local.group_arns

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Environment"
      values   = [var.environment]
    }
  }

  statement {
    sid       = "LeaveOwnTargetGroups"
    actions   = ["elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"]
    resources = [for color in sort(local.colors) : aws_lb_target_group.color[color].arn]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Environment"
      values   = [var.environment]
    }
  }

  # Load balancing looks instances up with the permission of whoever registers them. EC2 knows no resource for Describe calls.
  statement {
    sid = "LookUpTargets"
    actions = [
      "ec2:DescribeInstances",
      "ec2:DescribeInternetGateways",
      "ec2:DescribeSubnets",
      "ec2:DescribeVpcs",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.aws_region]
    }
  }

  statement {
    sid       = "CountLaunchFailures"
    actions   = ["ssm:DeleteParameter", "ssm:GetParameter", "ssm:PutParameter"]
    resources = [for name in values(local.group_names) : "arn:${local.partition}:ssm:${var.aws_region}:${local.account_id}:parameter/flowagent/launch-failures/${name}"]
  }

  # CloudWatch knows no resource for metrics; the namespace is what it can be held to.
  statement {
    sid       = "PublishMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.aws_region]
    }

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.metrics_namespace]
    }
  }

  dynamic "statement" {
    for_each = var.event_bus_name != null ? [var.event_bus_name] : []

    content {
      sid       = "PublishEvents"
      actions   = ["events:PutEvents"]
      resources = ["arn:${local.partition}:events:${var.aws_region}:${local.account_id}:event-bus/${statement.value}"]
    }
  }
}

resource "aws_iam_role_policy" "agent" {
  name   = "flowagent"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.agent.json
}

data "aws_iam_policy_document" "host" {
  # What the SSM agent calls to open a session, and no more: AWS's own AmazonSSMManagedInstanceCore may read every
  # parameter of the account. AWS knows no resource for the channels.
  statement {
    sid = "OpenSessions"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.aws_region]
    }
  }

  # A node can add a backup, and neither read nor delete one.
  statement {
    sid       = "WriteBackups"
    actions   = ["s3:PutObject"]
    resources = ["${module.backups.arn}/*"]
  }

  statement {
    sid       = "EncryptBackups"
    actions   = ["kms:GenerateDataKey"]
    resources = [aws_kms_key.data.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.aws_region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "host" {
  name   = "host"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.host.json
}

# --- AWS's services ---

resource "aws_iam_role" "flow_log" {
  count = var.flow_logs ? 1 : 0

  name               = "${local.name}-flow-log"
  description        = "Flow logs of ${local.name}"
  assume_role_policy = data.aws_iam_policy_document.assume["flow_log"].json
}

data "aws_iam_policy_document" "flow_log" {
  count = var.flow_logs ? 1 : 0

  statement {
    sid       = "WriteFlowLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flow[0].arn}:*"] # its streams
  }
}

resource "aws_iam_role_policy" "flow_log" {
  count = var.flow_logs ? 1 : 0

  name   = "write"
  role   = aws_iam_role.flow_log[0].id
  policy = data.aws_iam_policy_document.flow_log[0].json
}

resource "aws_iam_role" "database_monitoring" {
  name               = "${local.name}-database-monitoring"
  description        = "Enhanced monitoring of ${local.name}"
  assume_role_policy = data.aws_iam_policy_document.assume["database_monitoring"].json
}

resource "aws_iam_role_policy_attachment" "database_monitoring" {
  role       = aws_iam_role.database_monitoring.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_iam_role" "replication" {
  count = var.replica_region != null ? 1 : 0

  name               = "${local.name}-replication"
  description        = "Copies buckets of ${local.name}"
  assume_role_policy = data.aws_iam_policy_document.assume["replication"].json
}

data "aws_iam_policy_document" "replication" {
  count = var.replica_region != null ? 1 : 0

  statement {
    sid       = "ReadSources"
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [module.backups.arn, module.assets.arn]
  }

  statement {
    sid       = "ReadObjects"
    actions   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    resources = ["${module.backups.arn}/*", "${module.assets.arn}/*"]
  }

  statement {
    sid       = "WriteCopies"
    actions   = ["s3:ReplicateObject", "s3:ReplicateTags"]
    resources = ["${module.backups_replica[0].arn}/*", "${module.assets_replica[0].arn}/*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.data.arn]
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.replica[0].arn]
  }
}

resource "aws_iam_role_policy" "replication" {
  count = var.replica_region != null ? 1 : 0

  name   = "replicate"
  role   = aws_iam_role.replication[0].id
  policy = data.aws_iam_policy_document.replication[0].json
}
