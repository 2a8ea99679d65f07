# The nodes: one launch template, and a group for each colour. Terraform makes them and says how they are built; how many
# of which colour run, on which version of the template, is the rollout's.

# --- The image ---

# Only to tell whether the parameter is there: a missing one fails a data source before anybody could say what to do.
# Nothing is decrypted.
data "aws_ssm_parameters_by_path" "images" {
  path            = dirname(local.ami_parameter)
  recursive       = false
  with_decryption = false
}

data "aws_ssm_parameter" "ami" {
  name            = local.ami_parameter
  with_decryption = false

  lifecycle {
    precondition {
      condition     = contains(data.aws_ssm_parameters_by_path.images.names, local.ami_parameter)
      error_message = "There is no parameter ${local.ami_parameter} in ${var.aws_region}: build an image with ssm_parameter = \"${local.ami_parameter}\" in that region (docs/guides/ami.md), or set ami_parameter to the one that the build published."
    }

    postcondition {
      condition     = can(regex("^ami-[0-9a-f]{8,17}$", self.insecure_value))
      error_message = "The parameter ${local.ami_parameter} holds no AMI's id: set ami_parameter to the ssm_parameter of the image build, which has the data type aws:ec2:image."
    }
  }
}

data "aws_ami" "node" {
  owners             = var.image_owners
  include_deprecated = true # an image is no worse on the day after its 90th

  filter {
    name   = "image-id"
    values = [data.aws_ssm_parameter.ami.insecure_value]
  }

  lifecycle {
    # Tags don't travel to other accounts, so what another one built can't be asked.
    postcondition {
      condition     = self.owner_id != local.account_id || lookup(self.tags, "flowagent:verified", "") == "true"
      error_message = "The image ${self.id} of ${local.ami_parameter} isn't tagged flowagent:verified = true, so `flowagent image verify` didn't pass, or it isn't of this project's build: publish one with the flowagent-publish post-processor."
    }
  }
}

data "aws_ec2_instance_type" "node" {
  instance_type = var.instance_type
}

# --- The launch template ---

locals {
  # What the image can't know. Everything else of a node's configuration is in the image, and was validated there.
  node_document = merge(
    {
      apiVersion = "flowagent/v1"
      kind       = "Node"
      node       = merge({ environment = var.environment, provider = "ec2" }, var.release != "" ? { release = var.release } : {})
      secrets = {
        items = [for name, s in var.node_secrets : {
          name = name
          from = { secretsManager = { id = aws_secretsmanager_secret.main[s.secret].name, key = s.key } }
        }]
      }
      registries = [{ host = local.registry, ecr = {} }]
      workload = {
        variables = merge(
          {
            WMS_REGISTRY   = "${local.registry}/${var.environment}/"
            WMS_DB_HOST    = aws_db_instance.main.address
            WMS_DB_SSLMODE = "require"
            WMS_CACHE_HOST = aws_elasticache_replication_group.main.primary_endpoint_address
            WMS_CACHE_TLS  = "on"
            WMS_PORT       = tostring(var.app_port)
          },
          var.release != "" ? { IMAGE_TAG = var.release } : {},
          var.workload_variables,
        )
      }
      health = {
        listen = ":${local.health_port}"
        # Shared: a new node waits for them, and a failover takes nobody out of service.
        checks = [
          { name = "database", scope = "shared", postgres = { host = aws_db_instance.main.address, port = 5432, tls = { mode = "require" } } },
          { name = "cache", scope = "shared", tcp = { address = "${aws_elasticache_replication_group.main.primary_endpoint_address}:6379" } },
          { name = "app", http = { url = "http://127.0.0.1:${var.app_port}/livez" } },
        ]
      }
      drain = {
        budget          = "${var.drain_budget}s"
        deregisterDelay = "${var.deregistration_delay}s"
      }
      lifecycle  = { launchHook = local.hooks.launch.name, terminateHook = local.hooks.terminate.name }
      cloudWatch = { namespace = local.metrics_namespace }
    },
    var.event_bus_name != null ? { notify = { eventBridge = { bus = var.event_bus_name } } } : {},
  )
}

resource "aws_launch_template" "node" {
  name        = "${local.name}-node"
  description = "Nodes of ${local.name}"

  image_id      = data.aws_ami.node.id # an id, not the parameter: which image a version means never changes
  instance_type = var.instance_type

  vpc_security_group_ids = [aws_security_group.node.id]
  user_data              = base64encode(yamlencode(local.node_document))

  iam_instance_profile {
    name = aws_iam_instance_profile.node.name
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # containers don't reach it, and with it not the node's role
    instance_metadata_tags      = "enabled"
  }

  block_device_mappings {
    device_name = data.aws_ami.node.root_device_name

    ebs {
      volume_type           = "gp3"
      volume_size           = var.root_volume_gib
      encrypted             = true
      kms_key_id            = var.ebs_kms_key_arn
      delete_on_termination = true
    }
  }

  # Minutes rather than five: the scaling policies look at them.
  monitoring {
    enabled = true
  }

  # A shutdown from within is a node that leaves for good; stopped, it would stand in the group as unhealthy.
  instance_initiated_shutdown_behavior = "terminate"

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${local.name}-node" })
    }
  }

  # The version that new nodes are made of is named by its number, by the groups and by the rollout.
  update_default_version = true

  lifecycle {
    precondition {
      condition     = contains(data.aws_ec2_instance_type.node.supported_architectures, data.aws_ami.node.architecture)
      error_message = "The image of ${local.ami_parameter} is ${data.aws_ami.node.architecture}, and ${var.instance_type} can't run that: choose another instance_type, or build the image for the other architecture."
    }

    precondition {
      condition     = length(base64encode(yamlencode(local.node_document))) <= 21848
      error_message = "The nodes' user data is larger than 16 KiB, more than EC2 takes: move workload_variables into the image's own configuration."
    }
  }
}

# --- The groups ---

locals {
  # The agent's heartbeats extend both while it works, so these are for nodes that are gone without a word.
  hooks = {
    launch = {
      name       = "${var.project}-launch"
      transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
      result     = "ABANDON" # a node whose agent never spoke isn't let in
      timeout    = var.launch_hook_timeout
    }
    terminate = {
      name       = "${var.project}-terminate"
      transition = "autoscaling:EC2_INSTANCE_TERMINATING"
      result     = "CONTINUE"
      timeout    = var.termination_hook_timeout
    }
  }

  group_names = { for color in local.colors : color => "${var.project}-asg-${var.environment}-${color}" }
}

resource "aws_autoscaling_group" "color" {
  for_each = local.colors

  name                = local.group_names[each.key]
  vpc_zone_identifier = module.network.private_subnets
  target_group_arns   = [aws_lb_target_group.color[each.key].arn]

  min_size         = each.key == var.first_color ? local.nodes.min : 0
  desired_capacity = each.key == var.first_color ? local.nodes.min : 0
  max_size         = local.nodes.max

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version # its number: "$Latest" would change under the fleet's feet
  }

  health_check_type = "ELB"
  # A node is fit before it joins, by its launch hook. This is for the load balancer to see so: two checks, twice.
  health_check_grace_period = 60
  default_instance_warmup   = 60

  # Replacing a node never takes capacity away: the new one comes first.
  instance_maintenance_policy {
    min_healthy_percentage = 100
    max_healthy_percentage = 150
  }

  # The first instances start with the group, before a hook could be added to it. What is changed later reaches AWS by
  # the resources below.
  dynamic "initial_lifecycle_hook" {
    for_each = local.hooks

    content {
      name                 = initial_lifecycle_hook.value.name
      lifecycle_transition = initial_lifecycle_hook.value.transition
      default_result       = initial_lifecycle_hook.value.result
      heartbeat_timeout    = initial_lifecycle_hook.value.timeout
    }
  }

  suspended_processes = var.hold_launches ? ["Launch"] : []

  enabled_metrics = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances"]

  # An apply would wait for nodes that wait for people: secrets, a migration.
  wait_for_capacity_timeout = "0"

  dynamic "tag" {
    for_each = merge(local.tags, { Name = "${local.name}-${each.key}", "flowagent:color" = each.key })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    ignore_changes = [
      # The rollout's. It starts instance refreshes with the version that it wants, so that their rollback knows the one
      # before; an apply that moved the group first would leave it nothing to go back to.
      min_size, desired_capacity, launch_template[0].version,
      initial_lifecycle_hook, # for a group that is being made; a change would replace the group
    ]
  }

  # What a node needs in its first minute.
  depends_on = [
    aws_iam_role_policy.agent,
    aws_iam_role_policy.host,
    aws_lb_listener.https,
    aws_vpc_security_group_egress_rule.node_https,
    aws_vpc_endpoint.s3,
    module.network,
  ]
}

resource "aws_autoscaling_lifecycle_hook" "color" {
  for_each = { for pair in setproduct(local.colors, keys(local.hooks)) : "${pair[0]}-${pair[1]}" => { color = pair[0], hook = local.hooks[pair[1]] } }

  autoscaling_group_name = aws_autoscaling_group.color[each.value.color].name
  name                   = each.value.hook.name
  lifecycle_transition   = each.value.hook.transition
  default_result         = each.value.hook.result
  heartbeat_timeout      = each.value.hook.timeout
}

# --- Scaling ---

resource "aws_autoscaling_policy" "cpu" {
  for_each = local.colors

  name                   = "${local.group_names[each.key]}-cpu"
  autoscaling_group_name = aws_autoscaling_group.color[each.key].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.cpu_target

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "requests" {
  for_each = var.requests_per_node != null ? local.colors : toset([])

  name                   = "${local.group_names[each.key]}-requests"
  autoscaling_group_name = aws_autoscaling_group.color[each.key].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.requests_per_node

    predefined_metric_specification {
      predefined_metric_type = "ALBRequestCountPerTarget"
      resource_label         = "${aws_lb.main.arn_suffix}/${aws_lb_target_group.color[each.key].arn_suffix}"
    }
  }
}
