# What is refused, and by whom, before anything is made. Provider and account are the environment's: `make infra-test`
# sets AWS_ENDPOINT_URL to a stand-in. Nothing here writes.

variables {
  environment = "production"
  domain_name = "wms.flowviz.example"
  zone_name   = "flowviz.example"
}

run "a_vpc_larger_than_aws_allows" {
  command = plan
  variables { cidr = "10.0.0.0/8" }
  expect_failures = [var.cidr]
}

run "a_vpc_without_room_for_three_tiers" {
  command = plan
  variables {
    cidr             = "10.0.0.0/25"
    public_subnets   = ["10.0.0.0/27", "10.0.0.32/27"]
    private_subnets  = ["10.0.0.64/26", "10.0.0.64/26"]
    database_subnets = ["10.0.0.0/28", "10.0.0.16/28"]
  }
  expect_failures = [var.cidr]
}

run "a_range_that_does_not_begin_at_its_first_address" {
  command = plan
  variables { cidr = "10.0.3.7/16" }
  expect_failures = [var.cidr]
}

run "a_subnet_outside_the_vpc" {
  command = plan
  variables { database_subnets = ["10.0.201.0/24", "10.1.202.0/24"] }
  expect_failures = [var.database_subnets]
}

run "a_public_subnet_too_small_for_a_load_balancer" {
  command = plan
  variables { public_subnets = ["10.0.101.0/24", "10.0.102.0/28"] }
  expect_failures = [var.public_subnets]
}

run "a_private_subnet_too_small_for_two_colors" {
  command = plan
  variables { private_subnets = ["10.0.1.0/27", "10.0.2.0/24"] }
  expect_failures = [var.private_subnets]
}

run "a_single_availability_zone" {
  command = plan
  variables {
    azs              = ["us-east-1a"]
    public_subnets   = ["10.0.101.0/24"]
    private_subnets  = ["10.0.1.0/24"]
    database_subnets = ["10.0.201.0/24"]
  }
  expect_failures = [var.azs]
}

run "the_same_zone_twice" {
  command = plan
  variables { azs = ["us-east-1a", "us-east-1a"] }
  expect_failures = [var.azs]
}

run "a_zone_of_another_region" {
  command = plan
  variables { azs = ["us-east-1a", "eu-central-1b"] }
  expect_failures = [var.azs]
}

run "two_subnets_for_three_zones" {
  command = plan
  variables {
    azs              = ["us-east-1a", "us-east-1b", "us-east-1c"]
    private_subnets  = ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    database_subnets = ["10.0.201.0/24", "10.0.202.0/24", "10.0.203.0/24"]
  }
  expect_failures = [var.public_subnets]
}

run "production_without_deletion_protection" {
  command = plan
  variables { deletion_protection = false }
  expect_failures = [var.deletion_protection]
}

run "production_with_one_node" {
  command = plan
  variables { nodes = { min = 1, max = 4 } }
  expect_failures = [var.nodes]
}

run "no_room_to_replace_a_node" {
  command = plan
  variables { nodes = { min = 2, max = 2 } }
  expect_failures = [var.nodes]
}

run "a_domain_outside_the_zone" {
  command = plan
  variables { domain_name = "wms.elsewhere.example" }
  expect_failures = [var.zone_name]
}

run "a_certificate_for_another_domain" {
  command = plan
  variables { certificate_domain = "*.elsewhere.example" }
  expect_failures = [var.certificate_domain]
}

run "a_wildcard_for_two_labels" {
  command = plan
  variables {
    domain_name        = "wms.plant1.flowviz.example"
    certificate_domain = "*.flowviz.example"
  }
  expect_failures = [var.certificate_domain]
}

run "no_way_to_a_certificate" {
  command = plan
  variables { zone_name = null }
  expect_failures = [var.certificate_domain]
}

run "a_slow_start_that_aws_does_not_know" {
  command = plan
  variables { slow_start = 10 }
  expect_failures = [var.slow_start]
}

run "a_drain_longer_than_auto_scaling_waits" {
  command = plan
  variables {
    drain_budget             = 86400
    termination_hook_timeout = 300
  }
  expect_failures = [var.termination_hook_timeout]
}

run "a_node_secret_without_an_entry" {
  command = plan
  variables { node_secrets = { tls_key = { secret = "tls", key = "key" } } }
  expect_failures = [var.node_secrets]
}

run "an_endpoint_for_a_service_that_nodes_do_not_call" {
  command = plan
  variables { interface_endpoints = ["ecr.api", "sagemaker.api"] }
  expect_failures = [var.interface_endpoints]
}

run "copies_in_the_same_region" {
  command = plan
  variables { replica_region = "us-east-1" }
  expect_failures = [var.replica_region]
}

run "an_image_parameter_that_does_not_exist" {
  command = plan
  variables { ami_parameter = "/flowviz/production/nothing" }
  expect_failures = [data.aws_ssm_parameter.ami]
}

run "a_parameter_that_holds_no_image" {
  command = plan
  variables { ami_parameter = "/flowviz/production/not-an-image" }
  expect_failures = [data.aws_ssm_parameter.ami]
}

run "an_image_that_was_not_verified" {
  command = plan
  variables { ami_parameter = "/flowviz/production/unverified" }
  expect_failures = [data.aws_ami.node]
}

run "an_image_for_another_processor" {
  command = plan
  variables { instance_type = "t4g.medium" }
  expect_failures = [aws_launch_template.node]
}
