# The load balancer, and a target group for each colour. The rollout owns how requests are shared between them.

locals {
  health_port = 9180 # flowagent's

  # TLS 1.3 alone, or with the ciphers of 1.2 that have forward secrecy and authenticate what they encrypt. The names that
  # begin with TLS13-1-2 take both.
  tls_policy = var.allow_tls_1_2 ? "ELBSecurityPolicy-TLS13-1-2-Res-2021-06" : "ELBSecurityPolicy-TLS13-1-3-2021-06"
}

resource "aws_lb" "main" {
  name               = "${var.project}-alb-${var.environment}"
  internal           = false
  load_balancer_type = "application"
  security_groups    = [aws_security_group.alb.id]
  subnets            = module.network.public_subnets

  enable_deletion_protection = local.deletion_protection

  drop_invalid_header_fields = true
  desync_mitigation_mode     = "defensive"
  # Below the 75 s for which the application keeps idle connections: whoever closes first now and then loses a request.
  idle_timeout = 60

  access_logs {
    bucket  = module.logs.id
    prefix  = "access"
    enabled = true
  }

  connection_logs {
    bucket  = module.logs.id
    prefix  = "connections"
    enabled = true
  }

}

# Both are made of the same words, so that neither can differ: a rollout compares them.
resource "aws_lb_target_group" "color" {
  for_each = local.colors

  name        = "${var.project}-${each.key}-${var.environment}"
  port        = var.app_port
  protocol    = "HTTP"
  vpc_id      = module.network.vpc_id
  target_type = "instance"

  deregistration_delay          = var.deregistration_delay
  slow_start                    = var.slow_start
  load_balancing_algorithm_type = "round_robin" # the one that slow start goes with

  # The agent's, which says of a node whether it is fit to serve, and 503 from the moment when it is to leave.
  health_check {
    enabled             = true
    port                = local.health_port
    protocol            = "HTTP"
    path                = "/health"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }

  tags = { Name = "${local.name}-${each.key}", "flowagent:color" = each.key }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.main.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = local.tls_policy
  certificate_arn   = local.certificate_arn

  # A year, as browsers keep it: who came once never tries plain HTTP again.
  routing_http_response_strict_transport_security_header_value = "max-age=31536000; includeSubDomains"

  default_action {
    type = "forward"

    forward {
      dynamic "target_group" {
        for_each = local.colors

        content {
          arn    = aws_lb_target_group.color[target_group.key].arn
          weight = target_group.key == var.first_color ? 100 : 0
        }
      }
    }
  }

  lifecycle {
    # The rollout's: a plan during one must not want to take traffic back.
    ignore_changes = [default_action]
  }
}

# A colour that takes no traffic is reached by its name in a header. This is no lock: it opens nothing that the name of
# the site doesn't, and test_cidrs keeps strangers from a release that isn't out.
resource "aws_lb_listener_rule" "color" {
  for_each = length(var.test_cidrs) > 0 ? local.colors : toset([])

  listener_arn = aws_lb_listener.https.arn
  priority     = each.key == "blue" ? 10 : 20

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.color[each.key].arn
  }

  condition {
    http_header {
      http_header_name = "X-Flowviz-Color"
      values           = [each.key]
    }
  }

  condition {
    source_ip {
      values = var.test_cidrs
    }
  }

  tags = { Name = "${local.name}-test-${each.key}" }
}

# --- WAF ---

resource "aws_wafv2_web_acl" "main" {
  count = var.enable_waf ? 1 : 0

  name        = local.name
  description = "Before the load balancer of ${local.name}"
  scope       = "REGIONAL"

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = {
      AWSManagedRulesAmazonIpReputationList = 1
      AWSManagedRulesKnownBadInputsRuleSet  = 2
      AWSManagedRulesCommonRuleSet          = 3
    }

    content {
      name     = rule.key
      priority = rule.value

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.key
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = rule.key
        sampled_requests_enabled   = true
      }
    }
  }

  rule {
    name     = "RateLimit"
    priority = 10

    action {
      block {}
    }

    # Of one address in five minutes: a site's scanners behind one NAT address stay well below.
    statement {
      rate_based_statement {
        aggregate_key_type = "IP"
        limit              = 10000
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "RateLimit"
      sampled_requests_enabled   = true
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = local.name
    sampled_requests_enabled   = true
  }
}

resource "aws_wafv2_web_acl_association" "main" {
  count = var.enable_waf ? 1 : 0

  resource_arn = aws_lb.main.arn
  web_acl_arn  = aws_wafv2_web_acl.main[0].arn
}
