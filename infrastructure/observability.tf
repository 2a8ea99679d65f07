# Logs, a dashboard, and the alarms that a rollout and people look at. Each alarm says what it makes of missing data.

# --- Logs ---

resource "aws_cloudwatch_log_group" "flow" {
  count = var.flow_logs ? 1 : 0

  name              = "/${var.project}/${var.environment}/flow"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.data.arn
}

resource "aws_cloudwatch_log_group" "database" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${local.name}/${each.key}" # RDS's own names
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.data.arn
}

resource "aws_cloudwatch_log_group" "cache" {
  for_each = toset(["engine-log", "slow-log"])

  name              = "/${var.project}/${var.environment}/cache/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.data.arn
}

resource "aws_cloudwatch_log_group" "waf" {
  count = var.enable_waf ? 1 : 0

  name              = "aws-waf-logs-${local.name}" # WAF takes no name that begins otherwise
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.data.arn
}

resource "aws_wafv2_web_acl_logging_configuration" "main" {
  count = var.enable_waf ? 1 : 0

  resource_arn            = aws_wafv2_web_acl.main[0].arn
  log_destination_configs = [aws_cloudwatch_log_group.waf[0].arn]

  # Who sends one of these sends a session with it.
  dynamic "redacted_fields" {
    for_each = ["authorization", "cookie"]

    content {
      single_header {
        name = redacted_fields.value
      }
    }
  }
}

# --- Who is told ---

resource "aws_sns_topic" "alarms" {
  name              = "${local.name}-alarms"
  kms_master_key_id = aws_kms_key.data.arn
}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "PublishAlarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

# --- Alarms ---

locals {
  load_balancer = { LoadBalancer = aws_lb.main.arn_suffix }
  targets       = { for color in local.colors : color => { LoadBalancer = aws_lb.main.arn_suffix, TargetGroup = aws_lb_target_group.color[color].arn_suffix } }

  # From the brief: more than 5% errors for two minutes, p99 above 2 s.
  error_percent = 5
  p99_seconds   = 2
}

# Of one colour: what its nodes answered. CloudWatch writes no count of errors where there were none, so that is 0; where
# there were no requests, there is no share, and nothing failed.
resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = local.colors

  alarm_name          = "${local.name}-${each.key}-errors"
  alarm_description   = "More than ${local.error_percent}% of the requests to ${each.key} were answered with 5xx for two minutes."
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.error_percent
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "share"
    label       = "5xx in percent"
    expression  = "100 * FILL(errors, 0) / requests"
    return_data = true
  }

  metric_query {
    id = "errors"

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_Target_5XX_Count"
      dimensions  = local.targets[each.key]
      period      = 60
      stat        = "Sum"
    }
  }

  metric_query {
    id = "requests"

    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "RequestCount"
      dimensions  = local.targets[each.key]
      period      = 60
      stat        = "Sum"
    }
  }
}

# Of the load balancer itself: 502, 503 and 504 where no node answered. They belong to no target group, and where no node
# could be chosen at all, they aren't in RequestCount either.
resource "aws_cloudwatch_metric_alarm" "edge_errors" {
  alarm_name          = "${local.name}-edge-errors"
  alarm_description   = "More than ${local.error_percent}% of all requests were answered with 5xx, the load balancer's own included, for two minutes."
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.error_percent
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching" # no requests, no failures; that no node is there, no-node says
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "share"
    label       = "5xx in percent"
    expression  = "100 * (FILL(target, 0) + FILL(edge, 0)) / MAX([FILL(requests, 0), FILL(target, 0) + FILL(edge, 0)])"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = {
      target   = "HTTPCode_Target_5XX_Count"
      edge     = "HTTPCode_ELB_5XX_Count"
      requests = "RequestCount"
    }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.load_balancer
        period      = 60
        stat        = "Sum"
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "latency" {
  for_each = local.colors

  alarm_name          = "${local.name}-${each.key}-latency"
  alarm_description   = "One request in a hundred to ${each.key} took longer than ${local.p99_seconds} s, for two minutes."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "TargetResponseTime"
  dimensions          = local.targets[each.key]
  extended_statistic  = "p99"
  period              = 60
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.p99_seconds
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching" # no requests
  # With a handful of requests p99 is the slowest of them, which says nothing about a release.
  evaluate_low_sample_count_percentiles = "ignore"
  alarm_actions                         = [aws_sns_topic.alarms.arn]
  ok_actions                            = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  for_each = local.colors

  alarm_name          = "${local.name}-${each.key}-unhealthy"
  alarm_description   = "A node of ${each.key} failed the load balancer's checks for three minutes."
  namespace           = "AWS/ApplicationELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = local.targets[each.key]
  statistic           = "Maximum"
  period              = 60
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching" # a colour without nodes; that none is left at all, no-node says
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "no_node" {
  alarm_name          = "${local.name}-no-node"
  alarm_description   = "No node of either colour is healthy: nobody is served."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "breaching" # a load balancer that says nothing serves nobody
  actions_enabled     = !var.hold_launches
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "healthy"
    label       = "healthy nodes of the larger colour"
    expression  = "MAX([FILL(blue, 0), FILL(green, 0)])"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = local.colors

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = "HealthyHostCount"
        dimensions  = local.targets[metric_query.key]
        period      = 60
        stat        = "Minimum"
      }
    }
  }
}

# What the nodes themselves report (docs/guides/cloudwatch.md). In a rollout the colours run different releases, by which
# CloudWatch tells them apart.
resource "aws_cloudwatch_metric_alarm" "database_errors" {
  for_each = var.alarm_releases

  alarm_name          = "${local.name}-${each.key}-database"
  alarm_description   = "Nodes with release ${each.key} can't reach the database, or none of them reports."
  namespace           = local.metrics_namespace
  metric_name         = "DatabaseConnectionErrors"
  dimensions          = { Release = each.key }
  statistic           = "Sum"
  period              = 60
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 3
  datapoints_to_alarm = 2           # one lost probe is no outage
  treat_missing_data  = "breaching" # a release that says nothing is no good release
  actions_enabled     = !var.hold_launches
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "database_storage" {
  alarm_name          = "${local.name}-database-storage"
  alarm_description   = "The database has less than 10 GiB left, and grows no further than ${var.database_storage_gib.max} GiB."
  namespace           = "AWS/RDS"
  metric_name         = "FreeStorageSpace"
  dimensions          = { DBInstanceIdentifier = aws_db_instance.main.identifier }
  statistic           = "Minimum"
  period              = 300
  comparison_operator = "LessThanThreshold"
  threshold           = 10 * pow(1024, 3)
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  treat_missing_data  = "missing" # a database in maintenance; what is wrong with it then, other alarms say
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# --- Dashboard ---

locals {
  widgets = [
    {
      title = "Requests a minute"
      stat  = "Sum"
      metrics = [for color in local.colors :
        ["AWS/ApplicationELB", "RequestCount", "LoadBalancer", aws_lb.main.arn_suffix, "TargetGroup", aws_lb_target_group.color[color].arn_suffix, { label = color, color = local.paint[color] }]
      ]
    },
    {
      title = "Answers with 5xx a minute"
      stat  = "Sum"
      metrics = concat(
        [for color in local.colors :
          ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", aws_lb.main.arn_suffix, "TargetGroup", aws_lb_target_group.color[color].arn_suffix, { label = color, color = local.paint[color] }]
        ],
        [["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", aws_lb.main.arn_suffix, { label = "load balancer", color = "#d62728" }]],
      )
    },
    {
      title = "p99 in seconds"
      stat  = "p99"
      metrics = [for color in local.colors :
        ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.main.arn_suffix, "TargetGroup", aws_lb_target_group.color[color].arn_suffix, { label = color, color = local.paint[color] }]
      ]
    },
    {
      title = "Healthy nodes"
      stat  = "Minimum"
      metrics = [for color in local.colors :
        ["AWS/ApplicationELB", "HealthyHostCount", "LoadBalancer", aws_lb.main.arn_suffix, "TargetGroup", aws_lb_target_group.color[color].arn_suffix, { label = color, color = local.paint[color] }]
      ]
    },
    {
      title = "Processor of nodes, database and cache in percent"
      stat  = "Average"
      metrics = concat(
        [for color in local.colors : ["AWS/EC2", "CPUUtilization", "AutoScalingGroupName", local.group_names[color], { label = color, color = local.paint[color] }]],
        [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", local.name, { label = "database" }]],
        [["AWS/ElastiCache", "EngineCPUUtilization", "ReplicationGroupId", "${var.project}-cache-${var.environment}", "Role", "Primary", { label = "cache" }]],
      )
    },
    {
      title = "Database connections"
      stat  = "Maximum"
      metrics = [
        ["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", local.name, { label = "open" }],
      ]
    },
  ]

  paint = { blue = "#1f77b4", green = "#2ca02c" }
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = local.name
  dashboard_body = jsonencode({
    widgets = concat(
      [for i, w in local.widgets : {
        type   = "metric"
        x      = 12 * (i % 2)
        y      = 6 * floor(i / 2)
        width  = 12
        height = 6
        properties = {
          title   = w.title
          region  = var.aws_region
          view    = "timeSeries"
          period  = 60
          stat    = w.stat
          metrics = w.metrics
        }
      }],
      [{
        type   = "alarm"
        x      = 0
        y      = 18
        width  = 24
        height = 4
        properties = {
          title = "Alarms"
          alarms = concat(
            [for alarm in concat(values(aws_cloudwatch_metric_alarm.errors), values(aws_cloudwatch_metric_alarm.latency), values(aws_cloudwatch_metric_alarm.unhealthy), values(aws_cloudwatch_metric_alarm.database_errors)) : alarm.arn],
            [aws_cloudwatch_metric_alarm.edge_errors.arn, aws_cloudwatch_metric_alarm.no_node.arn, aws_cloudwatch_metric_alarm.database_storage.arn],
          )
        }
      }],
    )
  })
}
