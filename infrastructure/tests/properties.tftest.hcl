# What a plan of staging and of production has in common, and where they differ.

run "production" {
  command = plan
  variables {
    environment = "production"
    domain_name = "wms.flowviz.example"
    zone_name   = "flowviz.example"
  }

  # --- The load balancer ---
  assert {
    condition     = aws_lb_listener.https.ssl_policy == "ELBSecurityPolicy-TLS13-1-3-2021-06"
    error_message = "The listener must take TLS 1.3 alone: got ${aws_lb_listener.https.ssl_policy}."
  }
  assert {
    condition     = one(aws_lb_listener.http.default_action[0].redirect).protocol == "HTTPS" && one(aws_lb_listener.http.default_action[0].redirect).status_code == "HTTP_301"
    error_message = "HTTP must be redirected to HTTPS for good."
  }
  assert {
    condition     = aws_lb.main.enable_deletion_protection && aws_lb.main.drop_invalid_header_fields && !aws_lb.main.internal
    error_message = "Production's load balancer must be protected from deletion, drop invalid headers, and be public."
  }
  assert {
    condition     = one(aws_lb.main.access_logs).enabled && one(aws_lb.main.connection_logs).enabled
    error_message = "Access and connection logs must be on."
  }
  assert {
    condition = alltrue([
      for name in ["port", "protocol", "deregistration_delay", "slow_start", "load_balancing_algorithm_type", "health_check"] :
      jsonencode(aws_lb_target_group.color["blue"][name]) == jsonencode(aws_lb_target_group.color["green"][name])
    ])
    error_message = "Both target groups must be alike."
  }
  assert {
    condition = (
      one(aws_lb_target_group.color["blue"].health_check).path == "/health" && one(aws_lb_target_group.color["blue"].health_check).port == "9180"
      && one(aws_lb_target_group.color["blue"].health_check).matcher == "200"
    )
    error_message = "The health check must be the agent's."
  }
  assert {
    condition     = aws_lb_target_group.color["blue"].name == "flowviz-blue-production" && aws_lb.main.name == "flowviz-alb-production"
    error_message = "Names must be the brief's."
  }
  assert {
    condition     = [for g in one(aws_lb_listener.https.default_action[0].forward).target_group : g.weight if g.weight > 0] == [100]
    error_message = "One colour alone must take traffic at first."
  }
  assert {
    condition     = length(aws_lb_listener_rule.color) == 2
    error_message = "Each colour must be reachable by header."
  }

  # --- Nodes ---
  assert {
    condition     = one(aws_launch_template.node.metadata_options).http_tokens == "required" && one(aws_launch_template.node.metadata_options).http_put_response_hop_limit == 1 && one(aws_launch_template.node.metadata_options).instance_metadata_tags == "enabled"
    error_message = "Nodes must take IMDSv2 alone, one hop away, with their tags."
  }
  assert {
    condition     = aws_launch_template.node.image_id == data.aws_ssm_parameter.ami.insecure_value && startswith(aws_launch_template.node.image_id, "ami-")
    error_message = "The launch template must have the id that the parameter holds."
  }
  assert {
    condition     = one(aws_launch_template.node.block_device_mappings).ebs[0].encrypted == "true" && one(aws_launch_template.node.block_device_mappings).ebs[0].volume_type == "gp3"
    error_message = "Disks must be encrypted gp3."
  }
  assert {
    condition     = aws_launch_template.node.key_name == null
    error_message = "Nodes must have no SSH key."
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.node_alb : rule.from_port != 22 && rule.cidr_ipv4 == null])
    error_message = "Nodes must be open to the load balancer alone, and never for SSH."
  }
  assert {
    condition     = aws_autoscaling_group.color["blue"].min_size == 2 && aws_autoscaling_group.color["blue"].max_size == 4 && aws_autoscaling_group.color["green"].min_size == 0
    error_message = "Production must begin with two nodes of one colour."
  }
  assert {
    condition = alltrue([
      for color, group in aws_autoscaling_group.color :
      group.health_check_type == "ELB" && one(group.instance_maintenance_policy).min_healthy_percentage == 100 && length(group.instance_refresh) == 0 && try(length(group.suspended_processes), 0) == 0
    ])
    error_message = "Groups must ask the load balancer for health, keep capacity while they replace nodes, and leave refreshes to the rollout."
  }
  assert {
    condition = alltrue([
      for color, group in aws_autoscaling_group.color :
      { for hook in group.initial_lifecycle_hook : hook.lifecycle_transition => hook.default_result } == {
        "autoscaling:EC2_INSTANCE_LAUNCHING" = "ABANDON", "autoscaling:EC2_INSTANCE_TERMINATING" = "CONTINUE"
      }
    ])
    error_message = "Both groups must have a launch hook with ABANDON and a termination hook with CONTINUE before their first node."
  }
  assert {
    condition = alltrue([
      for key, hook in aws_autoscaling_lifecycle_hook.color :
      hook.heartbeat_timeout >= 120 && hook.heartbeat_timeout <= 300
    ])
    error_message = "Hooks must wait two to five minutes for a node that is silent."
  }

  # --- Data ---
  assert {
    condition     = !aws_db_instance.main.publicly_accessible && aws_db_instance.main.multi_az && aws_db_instance.main.storage_encrypted && aws_db_instance.main.deletion_protection && !aws_db_instance.main.skip_final_snapshot
    error_message = "Production's database must be private, in two zones, encrypted, and hard to delete."
  }
  assert {
    condition     = aws_db_instance.main.engine_version == "17" && aws_db_instance.main.auto_minor_version_upgrade && aws_db_instance.main.instance_class == "db.t3.medium"
    error_message = "The database must be PostgreSQL 17 of the minor version that AWS picks."
  }
  assert {
    condition     = aws_db_instance.main.manage_master_user_password && aws_db_instance.main.password == null
    error_message = "RDS must keep the master password."
  }
  assert {
    condition     = contains([for p in aws_db_parameter_group.main.parameter : p.value if p.name == "rds.force_ssl"], "1")
    error_message = "The database must demand TLS."
  }
  assert {
    condition     = aws_db_instance.main.database_insights_mode == "standard" && aws_db_instance.main.performance_insights_enabled
    error_message = "Database Insights must be on."
  }
  assert {
    condition     = aws_elasticache_replication_group.main.engine == "valkey" && aws_elasticache_replication_group.main.num_cache_clusters == 2 && aws_elasticache_replication_group.main.automatic_failover_enabled && aws_elasticache_replication_group.main.multi_az_enabled
    error_message = "Production's cache must be Valkey with a replica that takes over."
  }
  assert {
    condition     = aws_elasticache_replication_group.main.transit_encryption_enabled && aws_elasticache_replication_group.main.transit_encryption_mode == "required" && length(aws_elasticache_replication_group.main.user_group_ids) == 1
    error_message = "The cache must demand TLS and a user."
  }

  # --- Network ---
  assert {
    condition     = length(module.network.nat_public_ips) == 2
    error_message = "Production must have a NAT gateway in each zone."
  }

  # --- Images, secrets, alarms ---
  assert {
    condition     = alltrue([for r in aws_ecr_repository.main : r.image_tag_mutability == "IMMUTABLE" && one(r.image_scanning_configuration).scan_on_push && !r.force_delete])
    error_message = "Image tags must be immutable, and images scanned."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.errors["blue"].threshold == 5 && aws_cloudwatch_metric_alarm.errors["blue"].evaluation_periods == 2 && aws_cloudwatch_metric_alarm.latency["blue"].threshold == 2 && aws_cloudwatch_metric_alarm.latency["blue"].extended_statistic == "p99"
    error_message = "Alarms must be the brief's: 5% for two minutes, p99 above 2 s."
  }
  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.errors), values(aws_cloudwatch_metric_alarm.latency), values(aws_cloudwatch_metric_alarm.unhealthy), [aws_cloudwatch_metric_alarm.edge_errors]) :
      alarm.treat_missing_data == "notBreaching"
    ]) && aws_cloudwatch_metric_alarm.no_node.treat_missing_data == "breaching"
    error_message = "No requests must be no failure, and no report of a healthy node must be one."
  }
}

run "staging" {
  command = plan
  variables {
    environment = "staging"
    domain_name = "staging.wms.flowviz.example"
    zone_name   = "flowviz.example"
  }

  assert {
    condition     = aws_lb_listener.https.ssl_policy == "ELBSecurityPolicy-TLS13-1-3-2021-06" && !aws_lb.main.enable_deletion_protection
    error_message = "Staging must speak TLS 1.3 alone as well, and may be deleted."
  }
  assert {
    condition     = jsonencode(aws_lb_target_group.color["blue"].health_check) == jsonencode(aws_lb_target_group.color["green"].health_check) && aws_lb_target_group.color["blue"].slow_start == aws_lb_target_group.color["green"].slow_start
    error_message = "Both target groups must be alike."
  }
  assert {
    condition     = one(aws_launch_template.node.metadata_options).http_tokens == "required" && one(aws_launch_template.node.metadata_options).http_put_response_hop_limit == 1
    error_message = "Nodes must take IMDSv2 alone, one hop away."
  }
  assert {
    condition     = aws_autoscaling_group.color["blue"].min_size == 1 && aws_autoscaling_group.color["blue"].max_size == 2
    error_message = "Staging must begin with one node."
  }
  assert {
    condition     = !aws_db_instance.main.publicly_accessible && !aws_db_instance.main.multi_az && aws_db_instance.main.storage_encrypted && aws_db_instance.main.manage_master_user_password && aws_db_instance.main.instance_class == "db.t3.micro"
    error_message = "Staging's database must be small, in one zone, and as closed as production's."
  }
  assert {
    condition     = aws_elasticache_replication_group.main.num_cache_clusters == 1 && !aws_elasticache_replication_group.main.automatic_failover_enabled && aws_elasticache_replication_group.main.transit_encryption_mode == "required"
    error_message = "Staging's cache must be one node that demands TLS."
  }
  assert {
    condition     = length(module.network.nat_public_ips) == 1
    error_message = "Staging must share one NAT gateway."
  }
}

run "switches" {
  command = plan
  variables {
    environment         = "staging"
    domain_name         = "staging.wms.flowviz.example"
    zone_name           = "flowviz.example"
    allow_tls_1_2       = true
    enable_waf          = true
    hold_launches       = true
    flow_logs           = false
    interface_endpoints = ["ecr.api", "ecr.dkr", "secretsmanager"]
    replica_region      = "us-west-2"
    event_bus_name      = "flowviz"
    requests_per_node   = 600
    test_cidrs          = []
    azs                 = ["us-east-1a", "us-east-1b", "us-east-1c"]
    public_subnets      = ["10.0.101.0/24", "10.0.102.0/24", "10.0.103.0/24"]
    private_subnets     = ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    database_subnets    = ["10.0.201.0/24", "10.0.202.0/24", "10.0.203.0/24"]
    secrets = {
      app = { description = "Passwords", rotation_function = "arn:aws:lambda:us-east-1:123456789012:function:rotate" }
    }
  }

  assert {
    condition     = aws_lb_listener.https.ssl_policy == "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
    error_message = "The variable for TLS 1.2 must allow it, with ciphers of forward secrecy alone."
  }
  assert {
    condition     = length(aws_wafv2_web_acl_association.main) == 1 && length(aws_vpc_endpoint.interface) == 3 && length(aws_s3_bucket_replication_configuration.main) == 2 && length(aws_autoscaling_policy.requests) == 2
    error_message = "WAF, endpoints, copies and the second scaling policy must follow their variables."
  }
  assert {
    condition     = alltrue([for group in aws_autoscaling_group.color : tolist(group.suspended_processes) == tolist(["Launch"])])
    error_message = "Held groups must launch nothing."
  }
  assert {
    condition     = length(aws_lb_listener_rule.color) == 0 && length(aws_cloudwatch_log_group.flow) == 0
    error_message = "The header and flow logs must go with their variables."
  }
  assert {
    condition     = length(module.network.private_subnets) == 3 && length(aws_secretsmanager_secret_rotation.main) == 1
    error_message = "Three zones must have three subnets, and a rotation its function."
  }
}
